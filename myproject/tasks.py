"""Tasks that belong to no app."""

import logging
import time
from datetime import timedelta

from celery import shared_task
from django.contrib.sessions.models import Session
from django.db.models import Model, QuerySet
from django.utils import timezone
from django_celery_results.models import TaskResult

from .celery import Task
from .errors import PermanentError, TemporaryError

log = logging.getLogger(__name__)

RESULTS_KEPT = timedelta(days=7)
# Rows deleted in one statement: short locks, and memory that does not grow with the table.
CHUNK = 5_000
# Seconds. One person at the try-it page must not keep a worker from the shop's own tasks for long.
LONGEST_WAIT = 20
LIMITS = {"soft_time_limit": LONGEST_WAIT + 5, "time_limit": LONGEST_WAIT + 10}


@shared_task
def add(x: float, y: float) -> float:
    """Add two numbers. Safe to repeat: it changes nothing."""
    return x + y


@shared_task
def multiply(x: float, y: float) -> float:
    """Multiply two numbers. Safe to repeat: it changes nothing."""
    return x * y


@shared_task(**LIMITS)
def wait(*, seconds: int) -> str:
    """Take as long as it is told to, to show what a queue is for. Safe to repeat: it changes nothing."""
    time.sleep(min(seconds, LONGEST_WAIT))
    return f"Waited {seconds} s."


@shared_task(**LIMITS)
def fail() -> None:
    """Fail for good, to show what is kept of an error. Safe to repeat: it changes nothing."""
    raise PermanentError("This task fails on purpose, and trying again would not help.")


@shared_task(bind=True, **LIMITS)
def fail_twice(self: Task) -> str:
    """Fail twice and then succeed, to show retries. Safe to repeat: it changes nothing."""
    attempt = self.request.retries + 1
    # The extension stores it beside the result, which by itself does not tell.
    self.request.meta = {"retries": self.request.retries}
    if attempt < 3:
        raise TemporaryError(f"Attempt {attempt} fails on purpose; another one follows.")
    return f"Attempt {attempt} succeeded."


@shared_task
def heartbeat() -> str:
    """Show in the list of results that beat, broker and worker are alive. Safe to repeat: it changes nothing."""
    return timezone.now().isoformat(timespec="seconds")


@shared_task(ignore_result=True)
def clear_task_results() -> None:
    """Delete the results of old tasks. Safe to repeat: what is gone is gone."""
    delete_in_chunks(TaskResult.objects.filter(date_done__lt=timezone.now() - RESULTS_KEPT))


@shared_task(ignore_result=True)
def clear_sessions() -> None:
    """Delete expired sessions. Safe to repeat: what is gone is gone."""
    delete_in_chunks(Session.objects.filter(expire_date__lt=timezone.now()))


def delete_in_chunks(rows: QuerySet[Model]) -> int:
    """Delete the rows a chunk at a time, log and return how many there were."""
    total = 0
    while chunk := list(rows.order_by("pk").values_list("pk", flat=True)[:CHUNK]):
        total += rows.model._default_manager.filter(pk__in=chunk).delete()[0]
    log.info("Deleted %s old rows of %s", total, rows.model._meta.label)
    return total
