import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery._state import _task_stack

from durable.task import breaker
from durable.tests.celery import app
from durable.tests.jobs.models import Job
from durable.tests.jobs.tasks import finish_job
from durable.tests.settings import HOME

_ids = itertools.count(1)


@contextmanager
def task(task_id: str = "") -> Iterator[str]:
    """Be within a task, of that id or of a new one."""
    task_id = task_id or f"task-{next(_ids)}"
    finish_job.push_request(id=task_id)
    _task_stack.push(finish_job)
    try:
        yield task_id
    finally:
        _task_stack.pop()
        finish_job.pop_request()


def claim(job: Job, task_id: str = "") -> Job | None:
    """Claim the job as a task does; return it as its holder has it."""
    with task(task_id):
        return next(iter(Job.objects.claim(first=Job.objects.filter(pk=job.pk))), None)


def end_lease(*jobs: Job) -> None:
    """Let the leases end now, as if their workers had died long ago."""
    Job.objects.filter(pk__in=[job.pk for job in jobs]).update(**Job.lease.until(-Job.lease.lasts()))


def messages() -> list[Any]:
    """Take all messages out of the queue, the oldest first."""
    found = []
    with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
        while queue.qsize():
            message = queue.get(timeout=1)
            message.ack()
            found.append(message)
    return found


@pytest.fixture(autouse=True)
def empty_queue() -> Iterator[None]:
    yield
    breaker.close()
    for path in (HOME / "queue").iterdir():
        path.unlink(missing_ok=True)
