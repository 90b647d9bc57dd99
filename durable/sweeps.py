"""The sweep, a polling publisher: what is due is queued again, what is exhausted is given up.

A message is only a nudge, and any of them may be lost: with a broker that is away or wiped, with a worker that dies
between taking and acknowledging one. The row is the truth, so a sweep that reads rows misses nothing.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from celery import Task, current_app, shared_task
from django.db.models import QuerySet

from .schedules import Schedule, expires_before_next
from .task import survive


@dataclass(frozen=True)
class Sweep:
    """What becomes of the rows of one kind that were left behind."""

    # The rows to be queued again, in their order.
    rows: QuerySet[Any] | Sequence[Any]
    task: Task
    # The task's keyword, and the field that it is given.
    keyword: str
    key: str = "pk"
    # Messages in one sweep; the next one goes on.
    limit: int = 100
    # Rows that one message takes along.
    at_once: int = 1
    # Ends the rows that have used up their attempts; called first.
    give_up: Callable[[], object] | None = None
    # Other options of the message, of its key.
    options: Callable[[Any], dict[str, Any]] = lambda key: {}
    # Around the publishing of one row's message, such as what the log is to say.
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
    """Make a task of a function that returns sweeps; what they queue expires when the task itself does.

    That is before its schedule's next run, so what a consumer that is away leaves behind never adds up.
    """

    expires = schedule.expires or expires_before_next(timedelta(minutes=1))

    def decorate(declare: Callable[[], list[Sweep]]) -> Task:
        def run() -> None:
            for each in declare():
                each.run(expires)

        run.__name__, run.__doc__, run.__module__ = declare.__name__, declare.__doc__, declare.__module__
        return shared_task(ignore_result=True, **options)(run)

    return decorate
