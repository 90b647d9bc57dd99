"""What a worker needs to do for RabbitMQ beyond what Celery does."""

from typing import Any

from celery import signals
from celery.bootsteps import StartStopStep
from celery.worker.consumer import Connection
from celery.worker.consumer.delayed_delivery import DelayedDelivery
from django.conf import settings
from kombu import Consumer, Queue
from kombu.message import Message

from myproject.transport.broker_url import DEAD_LETTERS, RABBITMQ
from myproject.transport.envelope import Kind, raw_of, refuse

# Bounded, since it fills while no worker is there.
DEAD = Queue(DEAD_LETTERS, queue_arguments={"x-queue-type": "quorum", "x-max-length": 10_000})
# Its sender wanted that: the next sweep queues what is still to be done.
EXPIRED = "expired"


class DeclareQueues(StartStopStep):
    """Declare all queues: Celery declares those that this worker reads, and lets retries find their way to each."""

    requires = (Connection,)

    def start(self, consumer: Any) -> None:
        with consumer.connection.channel() as channel:
            for queue in settings.CELERY_TASK_QUEUES:
                queue.bind(channel).declare()
            DEAD.bind(channel).declare()


class KeepDeadLetters(StartStopStep):
    """Keep what RabbitMQ itself gives up as a dead letter like any other; nothing of it is run."""

    requires = (DeclareQueues,)

    def start(self, consumer: Any) -> None:
        channel = consumer.connection.channel()
        Consumer(channel, [DEAD], on_message=keep, on_decode_error=lambda message, _: keep(message)).consume()


def keep(message: Message) -> None:
    queue, reason = death_of(message.headers)
    if reason != EXPIRED:
        refuse(Kind.GIVEN_UP, queue, f"RabbitMQ says: {reason}", raw_of(message), message.headers.get("task"))
    message.ack()


def death_of(headers: Any) -> tuple[str, str]:
    """Return the queue that gave the message up last, and why; a retry has waited in others before."""
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    return str(last.get("queue", "?")), str(last.get("reason", "?"))


@signals.celeryd_init.connect
def prepare(instance: Any, **kwargs: Any) -> None:
    """Let each worker of this process declare the queues before Celery relies on them."""
    if settings.BROKER is RABBITMQ:
        instance.app.steps["consumer"].update([DeclareQueues, KeepDeadLetters])
        DelayedDelivery.requires = (*DelayedDelivery.requires, DeclareQueues)
