"""What a worker needs to do for RabbitMQ beyond what Celery does."""

from typing import Any

from celery import Celery
from celery.bootsteps import StartStopStep
from celery.worker.consumer import Connection
from celery.worker.consumer.delayed_delivery import DelayedDelivery
from django.conf import settings


class DeclareQueues(StartStopStep):
    """Declare all queues: Celery declares those that this worker reads, and lets retries find their way to each."""

    requires = (Connection,)

    def start(self, consumer: Any) -> None:
        with consumer.connection.channel() as channel:
            for queue in settings.CELERY_TASK_QUEUES:
                queue.bind(channel).declare()


def prepare(app: Celery) -> None:
    """Let each worker of this process declare the queues before Celery relies on them."""
    app.steps["consumer"].add(DeclareQueues)
    DelayedDelivery.requires = (*DelayedDelivery.requires, DeclareQueues)
