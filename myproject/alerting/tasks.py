"""Tasks that send and clean up alerts."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from celery import shared_task
from django.db import Error
from django.utils import timezone

from durable.sweeps import Sweep, sweep
from durable.task import Task
from myproject.alerting.models import Alert, DeadLetter
from myproject.schedules import SCHEDULES
from myproject.storage.clean_ups import CLEAR_LIMITS, delete_in_chunks, going_on_next_night

ALERTS_KEPT = timedelta(days=180)
LIMITS = {"soft_time_limit": 50, "time_limit": 60}


class AlertTask(Task):
    """Ends an alert that has reached at least one address."""

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        with suppress(Error):
            Alert.objects.claimed_in(task_id).give_up_silent()


@shared_task(name="myproject.tasks.send_alert", base=AlertTask, **LIMITS, ignore_result=True)
def send_alert(*, alert_id: int) -> None:
    """Send an alert to each address. Safe to repeat: the row is claimed, and records which addresses were reached."""
    # Imported here, since apprise costs 60 ms per start, and only few processes ever send an alert.
    from myproject.alerting import chat

    chat.deliver(alert_id)


@sweep(SCHEDULES["Check unsent alerts"], name="myproject.tasks.check_unsent_alerts")
def check_unsent_alerts() -> list[Sweep]:
    """Queue overdue alerts again. Safe to repeat: so is each alert."""
    return [Sweep(Alert.objects.due().order_by("due_at"), send_alert, "alert_id", limit=500)]


@shared_task(name="myproject.tasks.clear_old_alerts", **CLEAR_LIMITS, ignore_result=True)
def clear_old_alerts() -> None:
    """Delete alerts and dead letters of half a year ago. Safe to repeat: deletes are idempotent."""
    with going_on_next_night("alerts"):
        delete_in_chunks(Alert.objects.quiet_since(timezone.now() - ALERTS_KEPT).order_by("pk"))
        delete_in_chunks(DeadLetter.objects.filter(last_at__lt=timezone.now() - ALERTS_KEPT).order_by("pk"))
