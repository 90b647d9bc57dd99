"""Canaries: a small message through each queue every minute. Any queue that moves watches all the others."""

from datetime import datetime

from django.utils.timesince import timesince

from myproject.alerting.alerts import alert
from myproject.alerting.models import Canary


def arrive(queue: str, sent_at: datetime) -> None:
    """Record that a canary came through the queue, and alert for queues through which none does."""
    if not Canary.objects.record(queue, sent_at):
        return
    for late in Canary.objects.overdue():
        if late.mark_told():
            alert(
                f"Queue {late.queue} stands still",
                f"Nothing that was sent in the last {timesince(late.watched_since)} has come through: does a worker "
                "read it, and what is it busy with? The page Status shows both.",
                cause=f"canary {late.queue}",
                # Not the mail queue, which may be the one that is stuck.
                queue=queue,
            )
