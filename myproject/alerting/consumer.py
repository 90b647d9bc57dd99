"""A worker's consumer that refuses messages that cannot be tasks, and waits for a broker that refuses writes."""

import logging
import time
from collections.abc import Callable
from typing import Any

from amqp.exceptions import AMQPError
from celery.exceptions import SecurityError
from celery.worker import consumer
from celery.worker.state import maybe_shutdown
from django.conf import settings
from kombu.exceptions import ContentDisallowed
from kombu.exceptions import OperationalError as BrokerError
from kombu.message import Message
from redis.exceptions import RedisError

from myproject.transport import signing
from myproject.transport.broker_url import knock
from myproject.transport.envelope import Kind, check_task, raw_of, refuse

log = logging.getLogger(__name__)

# Errors of the broker, not of the message.
OF_THE_BROKER = (OSError, RedisError, AMQPError, BrokerError)
UNSIGNED = (SecurityError, ContentDisallowed, signing.Forged)
# Maximum seconds between two checks of a broker that refuses writes. A worker must be able to stop within one.
MAX_PAUSE = 5
# Seconds after which another refusal is logged again.
CALM = 60


class Consumer(consumer.Consumer):
    """Celery's, but a message that cannot be a task is a dead letter, and a broker that refuses is waited for."""

    # Through its events, anyone with access to the broker could make a worker send a task, signed by the worker.
    gossip = None
    pause = 1.0
    refused_at = float("-inf")

    class Blueprint(consumer.Consumer.Blueprint):
        default_steps = [step for step in consumer.Consumer.Blueprint.default_steps if "gossip" not in step]

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], None]:
        handle = super().create_task_handler(*args, **kwargs)
        is_signed = signing.is_on(self.app.conf)

        def checked(message: Message) -> None:
            try:
                if is_signed:
                    signing.verify(message)
                check_task(message)
                handle(message)
            except OF_THE_BROKER:
                raise
            except Exception as error:
                self.on_decode_error(message, error)

        return checked

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Refuse the untrusted message: it is acknowledged, so it is not redelivered."""
        self.bury(message, Kind.UNSIGNED if isinstance(exc, UNSIGNED) else Kind.MALFORMED, exc)

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:
        self.bury(message, Kind.MALFORMED, exc)

    def on_unknown_message(self, body: Any, message: Message) -> None:
        self.bury(message, Kind.MALFORMED, "it names no task")

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:
        self.bury(message, Kind.UNKNOWN, "this release has no such task")

    def bury(self, message: Message, kind: Kind, reason: Exception | str) -> None:
        queue = str(message.delivery_info.get("routing_key", "?"))
        refuse(kind, queue, reason, raw_of(message), message.headers.get("task"))
        if not message.acknowledged:
            message.ack()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Wait for a broker that answers and refuses writes: it is full, or has become a replica."""
        super().on_connection_error_after_connected(exc)
        if not isinstance(exc, self.channel_errors):
            return
        if time.monotonic() - self.refused_at > CALM:
            self.pause = 1.0
            log.error("The broker refuses, and this worker waits for it: %s", exc)
        wait(self.pause)
        while not self.takes_messages():
            self.pause = min(2 * self.pause, MAX_PAUSE)
            wait(self.pause)
        self.refused_at = time.monotonic()
        log.warning("The broker takes messages again")

    def takes_messages(self) -> bool:
        connection = self.app.connection_for_write(transport_options=settings.BROKER.probe_options, connect_timeout=1)
        try:
            knock(connection.default_channel)
        except OF_THE_BROKER:
            return False
        finally:
            connection.release()
        return True


def wait(seconds: float) -> None:
    """Sleep; raises the exception that stops the worker if a shutdown was requested."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        maybe_shutdown()
        time.sleep(0.2)
