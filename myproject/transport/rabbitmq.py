"""What a worker needs to do for RabbitMQ beyond what Celery does."""

from typing import Any

from celery import signals
from celery.bootsteps import StartStopStep
from celery.worker.consumer import Connection
from celery.worker.consumer.delayed_delivery import DelayedDelivery
from django.conf import settings

from myproject.transport.broker_url import RABBITMQ


class DeclareQueues(StartStopStep):
    """Declare all queues: Celery declares those that this worker reads, and lets retries find their way to each."""

    requires = (Connection,)

    def start(self, consumer: Any) -> None:
        with consumer.connection.channel() as channel:
            for queue in settings.CELERY_TASK_QUEUES:
                queue.bind(channel).declare()


@signals.celeryd_init.connect
def prepare(instance: Any, **kwargs: Any) -> None:
    """Let each worker of this process declare the queues before Celery relies on them."""
    if settings.BROKER is RABBITMQ:
        instance.app.steps["consumer"].add(DeclareQueues)
        DelayedDelivery.requires = (*DelayedDelivery.requires, DeclareQueues)
