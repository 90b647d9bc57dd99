"""The sweep, a polling publisher: due rows are queued again, exhausted ones are given up.

A message only triggers work, and any message may be lost: the broker is down or wiped, a worker dies between receiving
and acknowledging it. The row is the truth, so a sweep that reads rows misses nothing.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial, wraps
from typing import Any

from celery import Task, current_app, shared_task
from django.db.models import QuerySet

from .schedules import Schedule, expires_before_next
from .task import survive


@dataclass(frozen=True)
class Sweep:
    """How overdue rows of one kind are queued again."""

    # The rows to queue again, in order.
    rows: QuerySet[Any] | Sequence[Any]
    task: Task
    # The task's keyword argument, and the field that is its value.
    keyword: str
    key: str = "pk"
    # Messages per sweep; the next sweep continues.
    limit: int = 100
    # Rows that one message handles.
    at_once: int = 1
    # Ends the rows whose attempts are used up; called first.
    give_up: Callable[[], object] | None = None
    # Returns further options of a row's message.
    options: Callable[[Any], dict[str, Any]] = lambda key: {}
    # Wraps the publishing of one row's message, for example to bind keys for the log.
    context: Callable[[Any], AbstractContextManager[Any]] = field(default=lambda row: nullcontext())

    def run(self, expires: int) -> None:
        if self.give_up:
            self.give_up()
        survive(partial(self.publish, expires), self.task.name)

    def publish(self, expires: int) -> None:
        with current_app.producer_or_acquire() as producer, producer.batch():
            for row in self.rows[: self.limit * self.at_once : self.at_once]:
                value = getattr(row, self.key)
                kwargs = {self.keyword: value if isinstance(value, int) else str(value)}
                with self.context(row):
                    self.task.apply_async(kwargs=kwargs, expires=expires, producer=producer, **self.options(value))


def sweep(schedule: Schedule, **options: Any) -> Callable[[Callable[[], list[Sweep]]], Task]:
    """Make a task of a function that returns sweeps; the messages that they queue expire when the task does.

    That is before the schedule's next run, so messages do not pile up while no worker consumes them.
    """

    expires = schedule.expires or expires_before_next(timedelta(minutes=1))

    def decorate(declare: Callable[[], list[Sweep]]) -> Task:
        @wraps(declare)
        def run() -> None:
            failed: list[Exception] = []
            for each in declare():
                try:
                    each.run(expires)
                except Exception as error:
                    failed.append(error)
            # Only now: what one of them meets must not keep the others' rows waiting.
            if failed:
                raise failed[0]

        return shared_task(ignore_result=True, **options)(run)

    return decorate
