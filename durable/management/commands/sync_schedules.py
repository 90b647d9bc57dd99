import hashlib
import json
import re
from argparse import ArgumentParser
from typing import Any

from celery.schedules import crontab
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from durable.schedules import Schedule, declared

# Marks a row as declared in code; the fingerprint that follows shows whether it was edited since.
MARK = "Declared in the schedules.py of an app. Edits made here are kept. "
# Earlier releases wrote another place into the mark.
ANY_MARK = re.compile(r"^Declared in .+\. Edits made here are kept\. ")


class Command(BaseCommand):
    help = "Write the declared schedules to the database: create new ones, update unedited ones, disable removed ones."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="Change nothing; fail if something would change.")

    @transaction.atomic
    def handle(self, *args: Any, check: bool = False, **options: Any) -> None:
        changes = [*self.sync_declared(), *self.disable_removed()]
        if check and changes:
            # Rolls the transaction back.
            raise CommandError(f"Run `manage.py sync_schedules`, it would: {'; '.join(changes)}.")
        for change in changes:
            self.stdout.write(change)

    def sync_declared(self) -> list[str]:
        return [change for name, schedule in declared().items() if (change := sync(name, schedule))]

    def disable_removed(self) -> list[str]:
        ours = PeriodicTask.objects.filter(description__regex=ANY_MARK.pattern, enabled=True)
        return [disable(row) for row in ours.exclude(name__in=declared()).order_by("name")]


def sync(name: str, schedule: Schedule) -> str:
    """Bring one row up to date; return what was done, empty if nothing."""
    row = PeriodicTask.objects.filter(name=name).first()
    if row is None:
        write(PeriodicTask(name=name), schedule)
        return f"create {name}"
    written = ANY_MARK.sub("", row.description)
    if written != fingerprint(row):
        return ""
    write(row, schedule)
    return f"update {name}" if written != fingerprint(row) else ""


def write(row: PeriodicTask, schedule: Schedule) -> None:
    row.task, row.kwargs, row.expire_seconds = schedule.task, json.dumps(dict(schedule.kwargs)), schedule.expires
    row.queue = schedule.queue
    row.enabled = True
    row.interval = row.crontab = None
    if isinstance(schedule.when, crontab):
        # The time zone is the project's, whatever the one of this machine.
        row.crontab = CrontabSchedule.from_schedule(schedule.when)
        row.crontab.timezone = settings.TIME_ZONE
        row.crontab = times(CrontabSchedule, **fields(row.crontab))
    else:
        seconds = int(schedule.when.total_seconds())
        row.interval = times(IntervalSchedule, every=seconds, period=IntervalSchedule.SECONDS)
    description = MARK + fingerprint(row)
    if row.description != description:
        row.description = description
        row.save()


def times(model: Any, **said: Any) -> Any:
    """Return the row that says these times, of which the admin lets people add several; make one if there is none."""
    return model.objects.filter(**said).order_by("pk").first() or model.objects.create(**said)


def fields(schedule: CrontabSchedule) -> dict[str, Any]:
    names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week", "timezone")
    return {name: str(getattr(schedule, name)) for name in names}


def fingerprint(row: PeriodicTask) -> str:
    """Return a short digest of the row's editable fields."""
    facts = [row.task, row.args, row.kwargs, row.queue, row.priority, row.expire_seconds, row.one_off, row.enabled]
    when = [row.interval, row.crontab, row.solar, row.clocked, row.start_time, row.expires]
    return hashlib.sha256(json.dumps([str(fact) for fact in facts + when]).encode()).hexdigest()[:12]


def disable(row: PeriodicTask) -> str:
    row.enabled = False
    row.description = MARK + fingerprint(row)
    row.save()
    return f"disable {row.name}"
