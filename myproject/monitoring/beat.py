"""Beat: how it reads the schedules of the database, and when each of them will run next."""

import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import BaseSchedule, ParseException
from django.db import connection
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry

from myproject.monitoring.heartbeats import Heartbeat

log = logging.getLogger(__name__)

# Beat checks its schedules every few seconds; if one is later than this, beat is down.
OVERDUE = timedelta(minutes=2)
# What times raise that cannot be read, as the admin may set them: for 30 February, or for 3,000,000 days from now on.
UNREADABLE = (ParseException, ValueError, RuntimeError, OverflowError)
TWELVE_HOURS = re.compile(r"\b(\d\d):(\d\d) ([AP])M\b")


class OurEntry(ModelEntry):
    def save(self) -> None:
        """Write the last run only: saving the whole row could undo a concurrent edit."""
        ran = {"last_run_at": self.model.last_run_at, "total_run_count": self.model.total_run_count}
        PeriodicTask.objects.filter(pk=self.model.pk, enabled=True).update(**ran)


class Scheduler(DatabaseScheduler):
    """django-celery-beat's scheduler, but an invalid row does not stop the others."""

    Entry = OurEntry
    # Seconds until a run is stored, which a killed beat would repeat; the default is 180.
    sync_every = 10
    is_opening = is_closing = False

    def __init__(self, *args: Any, lazy: bool = False, **kwargs: Any) -> None:
        # Celery's signal handler closes the scheduler, and makes another one while the first still reads, which would
        # wait forever for the lock of the connection: there is nothing to close yet.
        if Scheduler.is_opening:
            raise SystemExit
        self.heartbeat = Heartbeat("beat")
        if not lazy:
            # Before reading the schedules, which may have to wait.
            self.heartbeat.start()
        Scheduler.is_opening = True
        try:
            super().__init__(*args, lazy=lazy, **kwargs)
        except SystemExit:
            self.heartbeat.stop()
            raise
        finally:
            Scheduler.is_opening = False

    def tick(self, *args: Any, **kwargs: Any) -> float:
        self.heartbeat.tick()
        seconds: float = super().tick(*args, **kwargs)
        return seconds

    def close(self) -> None:
        """Store the last runs and close the connections to broker and database.

        Celery closes twice: in its signal handler, where an interrupted query still holds the connection's lock, so
        that waiting for it would be a deadlock; and again at the end. Only the second call does the work.
        """
        if self.is_closing:
            connection.close()
            # Without a closing handshake: RabbitMQ never answers one if TERM interrupted a message.
            if broker := self.__dict__.pop("connection", None):
                broker.collect()
            super().close()
            self.heartbeat.stop()
        self.is_closing = True

    def all_as_schedule(self) -> dict[str, OurEntry]:
        entries = {}
        for row in self.enabled_models():
            try:
                entry = self.Entry(row, app=self.app)
                # Some are read without complaint and break when they are asked.
                entry.is_due()
            except Exception:
                log.exception("Schedule %s is left out until it is corrected", row.name)
            else:
                entries[row.name] = entry
        return entries


def in_words(times: CrontabSchedule) -> str:
    """Say when it runs, with 24 hours; the extension asks the machine's locale, and many say 08:00 AM.

    Empty for times that cannot be read, as in a form that is shown again.
    """
    try:
        words = str(times.human_readable)
    except ParseException:
        return ""
    return TWELVE_HOURS.sub(_of_24, words)


def _of_24(found: re.Match[str]) -> str:
    return f"{int(found[1]) % 12 + 12 * (found[3] == 'P'):02}:{found[2]}"


def next_runs(row: PeriodicTask, count: int) -> list[datetime]:
    """Return the next times at which beat will queue the task; the first may be overdue.

    It queries Celery's schedule as if each previous run had just happened, so changes of the clocks are included.
    Raises what an invalid schedule raises.
    """
    if not row.enabled or (row.one_off and row.total_run_count):
        return []
    schedule = row.schedule
    runs: list[datetime] = []
    run = first_run(row, schedule)
    while len(runs) < (1 if row.one_off else count) and not (row.expires and run >= row.expires):
        runs.append(run)
        run = following(schedule, max(run, timezone.now()))
    return runs


def first_run(row: PeriodicTask, schedule: BaseSchedule) -> datetime:
    if row.start_time and (row.start_time > timezone.now() or not row.last_run_at):
        return row.start_time
    return following(schedule, row.last_run_at or row.date_changed or timezone.now())


def following(schedule: BaseSchedule, last: datetime) -> datetime:
    """Return the first time after `last` at which the schedule comes due."""
    schedule.nowfun = lambda: last
    wait: timedelta = schedule.remaining_estimate(last)
    # In UTC: adding a duration to a local time would ignore a change of the clocks.
    return last.astimezone(UTC) + wait
