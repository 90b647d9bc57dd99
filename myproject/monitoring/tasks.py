"""Tasks that show that processes are alive and queues move."""

import time
from datetime import UTC, datetime

from celery import shared_task
from django.utils import timezone

from durable.task import Task
from myproject.alerting import canaries
from myproject.traces.recorder import seconds


@shared_task(name="myproject.tasks.heartbeat")
def heartbeat() -> str:
    """Show in the list of results that beat, broker and worker are alive. Safe to repeat: it changes nothing."""
    return timezone.now().isoformat(timespec="seconds")


@shared_task(name="myproject.tasks.canary", bind=True, soft_time_limit=20, time_limit=30, ignore_result=True)
def canary(self: Task, *, queue: str) -> None:
    """Measure the latency of a queue. Safe to repeat: only a newer canary is recorded."""
    told = (self.request.headers or {}).get("sent_at")
    # No signature covers it, and one of the far future would silence the watch over its queue until then.
    canaries.arrive(queue, datetime.fromtimestamp(seconds(told, time.time()), UTC))
