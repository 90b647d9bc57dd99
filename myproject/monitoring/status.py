"""The status page for staff."""

from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Max, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers
from django_celery_beat.models import PeriodicTask

from myproject.alerting.models import Alert, Canary, DeadLetter
from myproject.monitoring import broker, health
from myproject.monitoring.beat import OVERDUE, next_runs
from myproject.web.pages import staff_may

ALERTS = 6
COMING = 6


class Queue(NamedTuple):
    """One queue: what waits, how many messages workers hold if the broker says, and the newest canary."""

    waiting: broker.Waiting
    running: int | None
    canary: Canary | None


class Coming(NamedTuple):
    name: str
    at: datetime


@require_safe
@staff_may("myproject.view_status")
@vary_on_headers("HX-Request", "HX-Target")
def page(request: HttpRequest) -> HttpResponse:
    """Answer the panel of the dashboard, too: asking the workers takes time, so it comes by a request of its own."""
    # A busy machine may answer late once: what asks by itself asks again before it says that the broker is away.
    is_first = {"is_first": bool(request.headers.get("HX-Request")) and "again" not in request.GET}
    if request.headers.get("HX-Target") == "queues-live":
        return render(request, "status/_queues.html", queues() | is_first)
    template = "status/_status.html" if request.headers.get("HX-Request") else "status/status.html"
    return render(request, template, queues() | parts() | is_first)


def queues() -> dict[str, Any]:
    # If the broker was found to be down a moment ago, do not wait for it again.
    if health.readiness.ask()["broker"] is None:
        return {"is_away": True}
    try:
        with broker.connected() as connection:
            return {"queues": rows(connection), "workers": broker.workers(connection)}
    except broker.Away:
        return {"is_away": True}


def rows(connection: Any) -> list[Queue]:
    running, canaries = broker.running(connection), Canary.objects.in_bulk()
    return [
        Queue(waiting, running.get(waiting.queue), canaries.get(waiting.queue))
        for waiting in broker.waiting(connection)
    ]


def parts() -> dict[str, Any]:
    frequent = PeriodicTask.objects.filter(enabled=True, interval__isnull=False)
    beat = frequent.aggregate(at=Max("last_run_at"), since=Max("date_changed"))
    return {
        "latencies": {part: seconds and seconds * 1000 for part, seconds in health.readiness.ask().items()},
        "beat_at": beat["at"],
        # In a new shop nothing was due yet.
        "beat_is_late": is_late(beat["at"] or beat["since"]),
        "sweeps": sweeps(frequent),
        "next_runs": coming(),
        "dead_letters": DeadLetter.objects.count(),
        "alerts": Alert.objects.open().order_by("-last_at")[:ALERTS],
    }


def coming() -> list[Coming]:
    """Return the schedules that come due next, of those at times of day; makes one query."""
    rows = PeriodicTask.objects.filter(enabled=True, interval=None).select_related("crontab", "solar", "clocked")
    found = [Coming(row.name, run) for row in rows.order_by("name") for run in soonest(row)]
    return sorted(found, key=lambda run: run.at)[:COMING]


def soonest(row: PeriodicTask) -> list[datetime]:
    """Return its next run; none for one that cannot be read, which its own page explains."""
    try:
        return next_runs(row, 1)
    except Exception:
        return []


def is_late(ticked_at: datetime | None) -> bool:
    return ticked_at is None or timezone.now() - ticked_at > OVERDUE


def sweeps(frequent: QuerySet[PeriodicTask]) -> QuerySet[PeriodicTask]:
    """Return what runs often; the canaries stand with their queues."""
    return frequent.exclude(task="myproject.tasks.canary").select_related("interval").order_by("name")
