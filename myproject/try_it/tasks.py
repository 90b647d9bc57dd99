"""The small tasks of the try-it page."""

import time

from celery import shared_task

from durable.errors import PermanentError, TemporaryError
from durable.task import Task

# Seconds. One person at the try-it page must not keep a worker from the shop's own tasks for long.
MAX_WAIT = 20
LIMITS = {"soft_time_limit": MAX_WAIT + 5, "time_limit": MAX_WAIT + 10}


@shared_task(name="myproject.tasks.add")
def add(x: float, y: float) -> float:
    """Add two numbers. Safe to repeat: it changes nothing."""
    return x + y


@shared_task(name="myproject.tasks.multiply")
def multiply(x: float, y: float) -> float:
    """Multiply two numbers. Safe to repeat: it changes nothing."""
    return x * y


@shared_task(name="myproject.tasks.wait", **LIMITS)
def wait(*, seconds: int) -> str:
    """Wait for some seconds, to show what a queue is for. Safe to repeat: it changes nothing."""
    time.sleep(min(seconds, MAX_WAIT))
    return f"Waited {seconds} s."


@shared_task(name="myproject.tasks.fail", **LIMITS)
def fail() -> None:
    """Fail permanently, to show what is kept of an error. Safe to repeat: it changes nothing."""
    raise PermanentError("This task fails on purpose, and trying again would not help.")


@shared_task(bind=True, name="myproject.tasks.fail_twice", **LIMITS)
def fail_twice(self: Task) -> str:
    """Fail twice and then succeed, to show retries. Safe to repeat: it changes nothing."""
    attempt = self.request.retries + 1
    # The extension stores it beside the result, which by itself does not tell.
    self.request.meta = {"retries": self.request.retries}
    if attempt < 3:
        raise TemporaryError(f"Attempt {attempt} fails on purpose; another one follows.")
    return f"Attempt {attempt} succeeded."


@shared_task(name="myproject.tasks.total")
def total(numbers: list[float]) -> float:
    """Add up the results of a chord. Safe to repeat: it changes nothing."""
    return sum(numbers)


@shared_task(bind=True, name="myproject.tasks.progress", **LIMITS)
def progress(self: Task, *, steps: int) -> str:
    """Say after each second how far it is, to show update_state. Safe to repeat: it begins anew."""
    steps = min(steps, MAX_WAIT)
    for done in range(steps):
        if self.request.id:
            self.update_state(state="PROGRESS", meta={"done": done, "of": steps})
        time.sleep(1)
    return f"{steps} steps are done."
