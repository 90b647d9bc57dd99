"""The shop's Celery app with its crash points: `celery -A tests.faults.worker worker`."""

import time
from datetime import timedelta

import django

from myproject.celery import Task
from myproject.celery import app as app

django.setup()

from durable import mail  # noqa: E402
from orders import tasks  # noqa: E402
from tests.faults import points  # noqa: E402

# One order to a task, so that a fault strikes the order it is meant for; the storm proves whole sets.
tasks.ORDERS_AT_ONCE = 1
# Tests must not wait two minutes for each mail whose worker died.
mail.LEASE = timedelta(seconds=8)
points.install()


def note_run(task: Task) -> int:
    """Leave a file for this run; return how many there are."""
    folder = points.armed_file("runs", 0).parent
    (folder / f"{task.name.rpartition('.')[2]}.{time.monotonic_ns()}").touch()
    return len(list(folder.glob(f"{task.name.rpartition('.')[2]}.*")))


@app.task(bind=True, max_retries=3)
def die(self: Task) -> None:
    note_run(self)
    points.kill_child(0)


# A busy machine may take a second until the task itself begins, which is within the limit.
@app.task(bind=True, soft_time_limit=3, time_limit=30)
def exceed_soft(self: Task) -> None:
    if note_run(self) == 1:
        time.sleep(20)


@app.task(bind=True, soft_time_limit=2, time_limit=4)
def exceed_hard(self: Task) -> None:
    note_run(self)
    points.exceed_hard_limit(0)


@app.task(bind=True)
def take_long(self: Task) -> None:
    note_run(self)
    time.sleep(5)
