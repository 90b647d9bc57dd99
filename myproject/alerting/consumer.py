"""The part of a worker that takes messages from the broker, as ours refuses them."""

from collections.abc import Callable
from typing import Any

from celery.worker import consumer
from kombu.message import Message

from myproject.alerting.alerts import alert_of_refused_message
from myproject.transport import signing


class Consumer(consumer.Consumer):
    """Celery's, which tells somebody of a message that it refuses, and believes no headers that are not signed."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], None]:
        handle = super().create_task_handler(*args, **kwargs)
        # Decoded once: whoever asks for the payload again is given the same.
        check = signing.verify if signing.is_on(self.app.conf) else Message.decode

        def checked(message: Message) -> None:
            try:
                check(message)
            except Exception as error:
                self.on_decode_error(message, error)
            else:
                handle(message)

        return checked

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Refuse the message, which may be anybody's: acknowledged, it is not delivered again."""
        headers = message.headers if isinstance(message.headers, dict) else {}
        task, queue = headers.get("task"), message.delivery_info.get("routing_key")
        message.ack()
        alert_of_refused_message(str(task or "?")[:80], str(queue or "?")[:80], f"{type(exc).__name__}: {exc}"[:300])
