"""The base task: it retries temporary errors, and publishing it survives a broker outage."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from threading import Lock
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import current_app, signals
from celery.contrib.django.task import DjangoTask
from celery.exceptions import SoftTimeLimitExceeded
from celery.worker import request
from django.db import Error, InterfaceError, OperationalError, close_old_connections, transaction
from kombu.exceptions import KombuError, SerializationError

from durable.errors import TemporaryError

log = logging.getLogger(__name__)


class Request(request.Request):
    """A message in a worker's main process, which stores the end of a task that no child can: expired, killed, lost.

    Celery's own fails with the database connection, and its message keeps one of the worker's few places forever.
    """

    def on_timeout(self, *args: Any, **kwargs: Any) -> None:
        with self.database_may_fail():
            super().on_timeout(*args, **kwargs)

    def on_failure(self, *args: Any, **kwargs: Any) -> None:
        with self.database_may_fail():
            super().on_failure(*args, **kwargs)

    def _announce_revoked(self, *args: Any, **kwargs: Any) -> None:
        with self.database_may_fail():
            super()._announce_revoked(*args, **kwargs)

    @contextmanager
    def database_may_fail(self) -> Iterator[None]:
        """Replace a dead connection first; what cannot be stored is logged, and the message acknowledged."""
        close_old_connections()
        try:
            yield
        except Error as error:
            log.error("The end of %s %s was not stored, the database failed: %s", self.name, self.id, error)
            self.acknowledge()


class Task(DjangoTask):
    """Retries temporary errors with backoff; publishing it on commit never fails a request."""

    Request = Request
    autoretry_for = (TemporaryError, OperationalError, InterfaceError, SoftTimeLimitExceeded)
    # 1, 2, 4, 8 … seconds, at most ten minutes, with jitter so that not all retry at once.
    retry_backoff = True
    retry_backoff_max = 600
    retry_jitter = True
    max_retries = 5
    # Seconds until a task whose process was killed is retried, without backoff; the default is 180.
    default_retry_delay = 3

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Queue the task after the commit; a broker outage delays the task and does not fail the request."""
        self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Like `apply_async`, after the commit; returns no task id."""

        # Captured now: at the commit, the log context may be another one.
        context = copy_context()

        # A named function, since `robust` cannot log a functools.partial on Django 5.2.
        def publish() -> None:
            if breaker.lets_through():
                survive(partial(context.run, self.apply_async, *args, **kwargs), self.name)
            else:
                context.run(log.warning, "%s was not queued, the broker was away a moment ago", self.name)

        transaction.on_commit(publish, robust=True)

    def retry(self, *args: Any, exc: Exception | None = None, countdown: float | None = None, **options: Any) -> Any:
        """Like Celery's own, but after a second or the counterpart's Retry-After at the earliest, up to a maximum."""
        asked = min(getattr(exc, "retry_after", None) or 0, self.retry_backoff_max)
        if countdown is not None or asked:
            # Never at once, as jitter would have it: the next run could end, and store its result, before this one
            # stores that it is retried. Whole seconds: RabbitMQ's delayed delivery knows no fractions.
            countdown = max(1, math.ceil(max(countdown or 0, asked)))
        return super().retry(*args, exc=exc, countdown=countdown, **options)


class CircuitBreaker:
    """Keeps a page that queues fifty messages from waiting fifty times for the timeouts of a broker that is frozen.

    It opens after a failure. While it is open, one message is tried each second; a success closes it. A pattern of
    Michael Nygard's *Release It!*; each process has one.
    """

    SECONDS = 1.0

    def __init__(self) -> None:
        self.lock = Lock()
        self.close()

    def close(self) -> None:
        self.tried_at = math.inf

    def open(self) -> None:
        self.tried_at = time.monotonic()

    def lets_through(self) -> bool:
        with self.lock:
            if self.tried_at == math.inf:
                return True
            if time.monotonic() - self.tried_at < self.SECONDS:
                return False
            self.open()
            return True


breaker = CircuitBreaker()


def survive(publish: Callable[[], Any], what: str) -> bool:
    """Publish; log a warning and return False if the broker does not accept it: a sweep queues it later."""
    try:
        publish()
    except (KombuError, OSError) as error:
        # What cannot be written down says nothing about the broker.
        if not isinstance(error, SerializationError):
            breaker.open()
        log.warning("%s was not queued, the broker does not answer: %s", what, error)
        return False
    breaker.close()
    return True


def queue_many(task: Task, calls: Sequence[dict[str, Any]], **options: Any) -> int:
    """Queue the task with each of these arguments at once; return how many the broker accepted: all or none.

    A sweep queues the rest later.
    """

    def publish() -> None:
        with current_app.producer_or_acquire() as producer, producer.batch():
            for kwargs in calls:
                task.apply_async(kwargs=kwargs, producer=producer, **options)

    return len(calls) if survive(publish, task.name) else 0


def is_second_report(task: Any, exception: BaseException, task_id: str) -> bool:
    """Say whether Celery has sent `task_failure` for this failure before, as it does for a hard time limit.

    The first comes as the limit strikes, the second when the process is gone; only then is the task's request known.
    """
    return isinstance(exception, TimeLimitExceeded) and task.request.id == task_id


@signals.task_failure.connect
def call_on_failure(sender: Any, exception: BaseException, task_id: str, **kwargs: Any) -> None:
    """Call `on_failure` when a task's process has died too often: for this case alone Celery does not."""
    if isinstance(exception, WorkerLostError):
        sender.on_failure(exception, task_id, kwargs.get("args"), kwargs.get("kwargs"), None)
