"""Tasks that belong to no app."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.contrib.sessions.models import Session
from django.db import Error, connection
from django.db.models import Model, QuerySet
from django.utils import timezone
from django_celery_results.models import GroupResult, TaskResult

from durable.errors import PermanentError, TemporaryError
from myproject.alerting import chat
from myproject.alerting.models import Alert
from myproject.celery import Task

log = logging.getLogger(__name__)

RESULTS_KEPT = timedelta(days=7)
ALERTS_KEPT = timedelta(days=180)
# Rows deleted in one statement: short locks, and a limit that strikes loses no more than this.
CHUNK = 5_000
# A clean-up that is cut goes on the next night.
CLEAR_LIMITS = {"soft_time_limit": 240, "time_limit": 300}
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


@shared_task(bind=True, soft_time_limit=20, time_limit=30, ignore_result=True)
def canary(self: Task, *, queue: str) -> None:
    """Come through a queue, to show how long that takes. Safe to repeat: only a newer one is noted."""
    # Here, since alerts are told by a task of this module.
    from myproject.alerting import canaries

    canaries.arrive(queue, datetime.fromtimestamp((self.request.headers or {}).get("sent_at", time.time()), UTC))


class AlertTask(Task):
    """Does not alert of itself: that would never end."""

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        log.error("%s gave up for now, %s, task %s: %r", self.name, kwargs, task_id, exc)
        with suppress(Error):
            Alert.objects.filter(pk=kwargs["alert_id"], claimed_by=task_id).give_up_silent()


@shared_task(bind=True, base=AlertTask, soft_time_limit=50, time_limit=60, ignore_result=True)
def send_alert(self: Task, *, alert_id: int) -> None:
    """Tell the shop's keepers of an alert. Safe to repeat: the row is claimed, and remembers who was told."""
    chat.deliver(Alert.objects.get(pk=alert_id), self.request.id or "")


@shared_task(ignore_result=True)
def check_unsent_alerts() -> None:
    """Queue again what nobody was told of, and what is due after a pause. Safe to repeat: so is each alert."""
    for pk in Alert.objects.due().order_by("due_at").values_list("pk", flat=True)[:500]:
        send_alert.delay(alert_id=pk)


@shared_task(**CLEAR_LIMITS, ignore_result=True)
def clear_task_results() -> None:
    """Delete the results of old tasks and groups. Safe to repeat: what is gone is gone."""
    with going_on_next_night("results"):
        for model in (TaskResult, GroupResult):
            delete_in_chunks(model.objects.filter(date_done__lt=timezone.now() - RESULTS_KEPT).order_by("date_done"))


@shared_task(**CLEAR_LIMITS, ignore_result=True)
def clear_sessions() -> None:
    """Delete expired sessions. Safe to repeat: what is gone is gone."""
    with going_on_next_night("sessions"):
        delete_in_chunks(Session.objects.filter(expire_date__lt=timezone.now()).order_by("expire_date"))


@shared_task(**CLEAR_LIMITS, ignore_result=True)
def clear_old_alerts() -> None:
    """Delete alerts whose cause has been quiet for half a year. Safe to repeat: what is gone is gone."""
    with going_on_next_night("alerts"):
        delete_in_chunks(Alert.objects.quiet_since(timezone.now() - ALERTS_KEPT).order_by("pk"))


def delete_in_chunks(rows: QuerySet[Model]) -> int:
    """Delete the rows a chunk at a time, log and return how many there were.

    Their order should be that of an index which finds them; nothing may refer to them, since nothing else is deleted.
    """
    statement, params = deletion(rows)
    total, count = 0, CHUNK
    while count == CHUNK:
        with connection.cursor() as cursor:
            cursor.execute(statement, params)
            count = cursor.rowcount
        total += count
    log.info("Deleted %s old rows of %s", total, rows.model._meta.label)
    return total


def deletion(rows: QuerySet[Model]) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that deletes one chunk of the rows, and its parameters."""
    chosen, params = rows.values("pk")[:CHUNK].query.sql_with_params()
    table, key = rows.model._meta.db_table, rows.model._meta.pk.column
    # What somebody is changing at this moment, such as an alert that happens again, may not be old any more.
    chosen = f'{chosen} FOR UPDATE OF "{table}" SKIP LOCKED'
    # ANY(ARRAY(…)) is looked up by the key; for IN (…) PostgreSQL may read the whole table for each chunk.
    return f'DELETE FROM "{table}" WHERE "{key}" = ANY(ARRAY({chosen}))', params  # noqa: S608


@contextmanager
def going_on_next_night(what: str) -> Iterator[None]:
    """End quietly where the soft limit strikes: a retry would only delay the other clean-ups."""
    try:
        yield
    except SoftTimeLimitExceeded:
        log.warning("Time is up for %s; the next run goes on", what)
        # It may have struck within a statement, and then this connection is of no more use.
        connection.close()
