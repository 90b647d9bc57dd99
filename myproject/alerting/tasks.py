"""The tasks that tell people of alerts."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from celery import shared_task
from django.db import Error
from django.utils import timezone

from durable.task import Task
from myproject.alerting import chat
from myproject.alerting.models import Alert
from myproject.storage.clean_ups import CLEAR_LIMITS, delete_in_chunks, going_on_next_night

ALERTS_KEPT = timedelta(days=180)
LIMITS = {"soft_time_limit": 50, "time_limit": 60}


class AlertTask(Task):
    """Ends an alert that some address has heard of."""

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        with suppress(Error):
            Alert.objects.filter(pk=kwargs["alert_id"], claimed_by=task_id).give_up_silent()


@shared_task(name="myproject.tasks.send_alert", bind=True, base=AlertTask, **LIMITS, ignore_result=True)
def send_alert(self: Task, *, alert_id: int) -> None:
    """Tell the shop's keepers of an alert. Safe to repeat: the row is claimed, and remembers who was told."""
    chat.deliver(Alert.objects.get(pk=alert_id), self.request.id or "")


@shared_task(name="myproject.tasks.check_unsent_alerts", ignore_result=True)
def check_unsent_alerts() -> None:
    """Queue again what nobody was told of, and what is due after a pause. Safe to repeat: so is each alert."""
    for pk in Alert.objects.due().order_by("due_at").values_list("pk", flat=True)[:500]:
        send_alert.delay(alert_id=pk)


@shared_task(name="myproject.tasks.clear_old_alerts", **CLEAR_LIMITS, ignore_result=True)
def clear_old_alerts() -> None:
    """Delete alerts whose cause has been quiet for half a year. Safe to repeat: what is gone is gone."""
    with going_on_next_night("alerts"):
        delete_in_chunks(Alert.objects.quiet_since(timezone.now() - ALERTS_KEPT).order_by("pk"))
