"""The base task: it retries what is temporary, and publishing it survives a broker that is away."""

import logging
import math
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

from billiard.exceptions import WorkerLostError
from celery import current_app, signals
from celery.contrib.django.task import DjangoTask
from celery.exceptions import SoftTimeLimitExceeded
from django.db import InterfaceError, OperationalError, transaction
from kombu.exceptions import KombuError

from durable.errors import TemporaryError

log = logging.getLogger(__name__)


class Task(DjangoTask):
    """Retries what is temporary, with backoff; what is queued on commit never fails a request."""

    autoretry_for = (TemporaryError, OperationalError, InterfaceError, SoftTimeLimitExceeded)
    # 1, 2, 4, 8 … seconds, at most ten minutes, each a little off so that not all come back at once.
    retry_backoff = True
    retry_backoff_max = 600
    retry_jitter = True
    max_retries = 5
    # Seconds until a task whose process was killed runs again, which no backoff governs; the default is 180.
    default_retry_delay = 3

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Queue the task when the transaction is committed; a broker that is away costs time, not the request."""
        self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Like `apply_async`, when the transaction is committed; returns no task id."""

        # The ids of now: by the time of the commit, the code may be at another order.
        context = copy_context()

        # A named function: `robust` cannot log a functools.partial on Django 5.2.
        def publish() -> None:
            survive(partial(context.run, self.apply_async, *args, **kwargs), self.name)

        transaction.on_commit(publish, robust=True)

    def retry(self, *args: Any, exc: Exception | None = None, countdown: float | None = None, **options: Any) -> Any:
        """Like Celery's own, but not before the pause that a counterpart asked for, as long as that is bearable."""
        asked = min(getattr(exc, "retry_after", None) or 0, self.retry_backoff_max)
        # Whole seconds: RabbitMQ cannot wait for a part of one.
        pause = math.ceil(max(countdown or 0, asked))
        return super().retry(*args, exc=exc, countdown=pause or countdown, **options)


def survive(publish: Callable[[], Any], what: str) -> bool:
    """Publish; return False, with a warning in the log, when the broker does not take it: a sweep queues it later."""
    try:
        publish()
    except (KombuError, OSError) as error:
        log.warning("%s was not queued, the broker does not answer: %s", what, error)
        return False
    return True


def queue_many(task: Task, calls: Sequence[dict[str, Any]], **options: Any) -> int:
    """Queue the task with each of these arguments, all in one go; return how many the broker took: all or none.

    What it does not take is left to a sweep.
    """

    def publish() -> None:
        with current_app.producer_or_acquire() as producer, producer.batch():
            for kwargs in calls:
                task.apply_async(kwargs=kwargs, producer=producer, **options)

    return len(calls) if survive(publish, task.name) else 0


@signals.task_failure.connect
def call_on_failure(sender: Any, exception: BaseException, task_id: str, **kwargs: Any) -> None:
    """Let a task know that its process died once too often: of that alone Celery does not tell `on_failure`."""
    if isinstance(exception, WorkerLostError):
        sender.on_failure(exception, task_id, kwargs.get("args"), kwargs.get("kwargs"), None)
