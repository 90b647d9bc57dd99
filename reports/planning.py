"""Reports by schedule, for people who need not ask for them.

A schedule's times are beat's, edited on its page or in the admin. Beat's message is only a nudge: a time that has come
is owed until it was seen to, so one whose message was lost, or at which beat was down, is made up for by the sweep.
Beat alone would not: it reads a crontab only within two hours of its time.
Of several that were missed, only the latest is made: what is older, staff asks for by its days.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

from django.db import transaction
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from accounts.models import User
from myproject.monitoring.beat import following

from .models import OPEN, Period, Report, ReportSchedule, hold

log = logging.getLogger(__name__)

TASK = "reports.tasks.plan_scheduled_report"
# What stands in the admin: never the mark of `sync_schedules`, which disables what it does not find declared.
DESCRIPTION = "Made on the page of scheduled reports, which has the recipients and the history."
# Seconds after which a worker that was away drops beat's message; the sweep nudges all the same.
EXPIRES = 3600


@transaction.atomic
def save(schedule: ReportSchedule, recipients: Sequence[User], when: Mapping[str, str]) -> None:
    """Write the schedule and beat's row, both or neither; `when` has the fields of a crontab."""
    is_new = schedule._state.adding
    row = PeriodicTask(task=TASK, description=DESCRIPTION) if is_new else schedule.periodic_task
    row.name = f"Report: {schedule.name} ({str(schedule.pk)[:8]})"
    row.kwargs, row.expire_seconds = json.dumps({"schedule_id": str(schedule.pk)}), EXPIRES
    row.interval = row.solar = row.clocked = None
    # No constraint keeps a crontab from being there twice, so this must not expect one.
    known = CrontabSchedule.objects.filter(**when).order_by("pk").first()
    row.crontab = known or CrontabSchedule.objects.create(**when)
    row.save()
    schedule.periodic_task = row
    # One that is new must not write over what the same form has made before.
    schedule.save(force_insert=is_new)
    schedule.recipients.set(recipients)
    log.info("Schedule %s is %s", schedule.pk, "made" if is_new else "changed")


@transaction.atomic
def pause(schedule: ReportSchedule, paused: bool) -> None:
    """Pause or resume it. What was due meanwhile is not made up for: `due_at` counts from the change."""
    schedule.periodic_task.enabled = not paused
    schedule.periodic_task.save()
    log.info("Schedule %s is %s", schedule.pk, "paused" if paused else "resumed")


@transaction.atomic
def delete(schedule: ReportSchedule) -> None:
    """Delete it with beat's row, and make none of its reports any more; those that it made stay."""
    # Without their schedule two open ones could be the same report.
    for report in Report.objects.filter(schedule=schedule, status__in=OPEN):
        report.mark_cancelled()
    ReportSchedule.objects.filter(pk=schedule.pk).delete()
    schedule.periodic_task.delete()
    log.info("Schedule %s is deleted", schedule.pk)


def next_run(schedule: ReportSchedule) -> datetime:
    """Return the first of its times that was not seen to; it may have come already."""
    return following(schedule.periodic_task.schedule, seen_to(schedule))


def seen_to(schedule: ReportSchedule) -> datetime:
    """Return when the last of its times was seen to, or since when it has them."""
    row = schedule.periodic_task
    # A time that comes with the start is one of them.
    start = row.start_time and row.start_time - timedelta.resolution
    return max(filter(None, [schedule.last_due_at, row.date_changed, start]))


def told(moment: datetime, zone: tzinfo) -> str:
    """Say the moment as the clocks of the zone show it, with the name of that time."""
    return f"{timezone.localtime(moment, zone):%A %d %B %Y, %H:%M %Z}"


def due_at(schedule: ReportSchedule) -> datetime | None:
    """Return the latest of its times that has come and was not seen to; None when there is none."""
    due, last, now = None, seen_to(schedule), timezone.now()
    # A clocked schedule has one time, and names that again when it is over.
    while last < (run := following(schedule.periodic_task.schedule, last)) <= now:
        due = last = run
    return due


def all_due() -> list[ReportSchedule]:
    """Return the schedules whose time has come; makes a query."""
    running = ReportSchedule.objects.filter(periodic_task__enabled=True).select_related("periodic_task__crontab")
    return [schedule for schedule in running.order_by("pk") if due_at(schedule)]


@transaction.atomic
def plan_due(schedule_id: str) -> Report | None:
    """Write down the report that is due now, once per slot; None when there is none to make."""
    running = ReportSchedule.objects.filter(periodic_task__enabled=True).select_related("periodic_task__crontab")
    schedule = running.filter(pk=schedule_id).first()
    due = due_at(schedule) if schedule else None
    if schedule is None or due is None or not schedule.mark_seen_to(due):
        log.info("Schedule %s: nothing is due", schedule_id)
        return None
    return plan(schedule, due, slot=timezone.localdate(due, schedule.zone))


@transaction.atomic
def run_now(schedule: ReportSchedule) -> Report | None:
    """Write down a report beside the schedule; while one is being made, that is the one. Raises `TooMany`."""
    hold(schedule.made_by)
    if not Report.objects.filter(schedule=schedule, slot=None, status__in=OPEN).exists():
        Report.objects.make_room(schedule.made_by)
    return plan(schedule, timezone.now(), slot=None)


def plan(schedule: ReportSchedule, moment: datetime, slot: date | None) -> Report | None:
    """Write down one report for all recipients; None when nobody may read it any more."""
    people = recipients(schedule)
    if not people:
        log.warning("Schedule %s: none of its recipients is staff any more", schedule.pk)
        return None
    same = {"schedule": schedule, "slot": slot} | ({} if slot else {"status__in": OPEN})
    report, is_new = Report.objects.get_or_create(**same, defaults=facts(schedule, moment))
    if is_new:
        report.readers.set(people)
    return report


def facts(schedule: ReportSchedule, moment: datetime) -> dict[str, Any]:
    # The shop's days, wherever the schedule's clock hangs: only those are sure to be over.
    start, end = days(Period(schedule.period), timezone.localdate(moment)) if schedule.is_dated else (None, None)
    what = {"kind": schedule.kind, "format": schedule.format, "start": start, "end": end}
    return {"requested_by": schedule.made_by, **what, **Report.lease.fresh()}


def recipients(schedule: ReportSchedule) -> list[User]:
    return list(schedule.recipients.filter(is_active=True, is_staff=True).order_by("pk"))


def days(period: Period, today: date) -> tuple[date, date]:
    """Return the first and the last day of the period, seen from that day."""
    yesterday = today - timedelta(days=1)
    if period == Period.LAST_WEEK:
        sunday = today - timedelta(days=today.isoweekday())
        return sunday - timedelta(days=6), sunday
    if period == Period.LAST_MONTH:
        end = today.replace(day=1) - timedelta(days=1)
        return end.replace(day=1), end
    return (yesterday if period == Period.YESTERDAY else today - timedelta(days=7)), yesterday
