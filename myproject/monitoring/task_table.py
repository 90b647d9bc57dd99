"""The tasks of the shop in a table: purpose, how long each waited and ran lately, its next run, and its code."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from celery import current_app
from django.db import connection
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from myproject.monitoring.beat import UNREADABLE, following
from myproject.traces.waterfall import source_of

LATELY = timedelta(days=7)
# Runs of each task that are looked at, the newest ones: so the page takes no longer where there are a million.
MOST_RUNS = 500
# A part for each task: PostgreSQL knows how often each of them ran, but nothing of the tasks of a list.
NEWEST = """
(SELECT task, sent_at, started_at, ended_at FROM myproject_run WHERE task = %s AND ended_at > %s
 ORDER BY ended_at DESC LIMIT %s)
"""
# Milliseconds, as medians: one slow run in a night says nothing of the others.
MEDIANS = """
SELECT task, count(*), max(ended_at),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - sent_at)) * 1000,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - started_at)) * 1000
FROM ({newest}) AS run GROUP BY task
"""


class Row(NamedTuple):
    """A task; what its runs say is None where there was none lately, `next_at` where nothing is scheduled.

    Of `runs` at most `MOST_RUNS` are counted.
    """

    name: str
    purpose: str
    queue: str
    code: str
    runs: int = 0
    last_at: datetime | None = None
    waited: float | None = None
    ran: float | None = None
    next_at: datetime | None = None


def rows() -> list[Row]:
    """Return all tasks of ours by name. Makes two queries."""
    # The web knows only the tasks that its own modules have imported.
    current_app.loader.import_default_modules()
    codes = {name: code for name in sorted(current_app.tasks) if (code := source_of(name))}
    measured, coming = runs_of(codes), next_times()
    found = []
    for name, code in codes.items():
        runs, last_at, waited, ran = measured.get(name, (0, None, None, None))
        purpose = (current_app.tasks[name].__doc__ or "").partition(".")[0]
        queue = current_app.amqp.router.route({}, name)["queue"].name
        found.append(Row(name, purpose, queue, code, runs, last_at, waited, ran, coming.get(name)))
    return found


def runs_of(names: Collection[str]) -> Mapping[str, tuple[Any, ...]]:
    since = timezone.now() - LATELY
    statement = MEDIANS.format(newest="UNION ALL".join([NEWEST] * len(names)))
    with connection.cursor() as cursor:
        cursor.execute(statement, [value for name in names for value in (name, since, MOST_RUNS)])
        return {task: rest for task, *rest in cursor.fetchall()}


def next_times() -> dict[str, datetime]:
    """Return when each scheduled task comes next."""
    found: dict[str, datetime] = {}
    related = ("interval", "crontab", "solar", "clocked")
    for row in PeriodicTask.objects.filter(enabled=True).select_related(*related).order_by("pk"):
        # What cannot be read, the row's own page in the admin explains.
        with suppress(*UNREADABLE):
            comes = following(row.schedule, row.last_run_at or row.date_changed)
            found[row.task] = min(found.get(row.task, comes), comes)
    return found
