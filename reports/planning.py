"""Scheduled reports.

A schedule's times are django-celery-beat's, edited on its page or in the admin. Beat's message only triggers the check:
a slot is owed until it is handled, so the sweep catches up on one whose message was lost or at which beat was down.
Beat alone would not: it looks back at most two hours for a crontab.
Of several missed slots, only the latest is made up for; staff can request older days by hand.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

from celery.schedules import BaseSchedule
from django.db import transaction
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from accounts.models import User
from accounts.services import staff_with
from myproject import texts
from myproject.monitoring.beat import UNREADABLE, following, in_words

from .models import OPEN, Period, Report, ReportSchedule, hold

log = logging.getLogger(__name__)

TASK = "reports.tasks.plan_scheduled_report"
# Shown in the admin. Without the mark of `sync_schedules`, which disables marked rows that are not declared.
DESCRIPTION = "Made on the page of scheduled reports, which has the recipients and the history."
# The columns of beat's row that the form changes; beat and the sweep write the others.
TIMES = ["name", "kwargs", "expire_seconds", "crontab", "interval", "solar", "clocked", "date_changed"]
# Seconds after which beat's message expires; the sweep queues the slot all the same.
EXPIRES = 3600


@transaction.atomic
def save(schedule: ReportSchedule, recipients: Sequence[User], when: Mapping[str, str]) -> None:
    """Write the schedule and beat's row in one transaction; `when` has the fields of a crontab."""
    is_new = schedule._state.adding
    row = PeriodicTask(task=TASK, description=DESCRIPTION) if is_new else schedule.periodic_task
    row.name = f"Report: {schedule.name} ({str(schedule.pk)[:8]})"
    row.kwargs, row.expire_seconds = json.dumps({"schedule_id": str(schedule.pk)}), EXPIRES
    row.interval = row.solar = row.clocked = None
    # No constraint makes crontabs unique, so `get` could find several.
    known = CrontabSchedule.objects.filter(**when).order_by("pk").first()
    row.crontab = known or CrontabSchedule.objects.create(**when)
    row.save(update_fields=None if is_new else TIMES)
    schedule.periodic_task = row
    # A second submit of the same form must not overwrite the schedule that the first one created.
    schedule.save(force_insert=is_new, update_fields=None if is_new else ["name", "kind", "format", "period"])
    schedule.recipients.set(recipients)
    log.info("Schedule %s is %s", schedule.pk, "made" if is_new else "changed")


@transaction.atomic
def pause(schedule: ReportSchedule, paused: bool) -> None:
    """Pause or resume it. Slots during the pause are skipped: `due_at` counts from the change."""
    schedule.periodic_task.enabled = not paused
    # The extension forgets the last run of one that is paused.
    schedule.periodic_task.save(update_fields=["enabled", "date_changed", *(["last_run_at"] if paused else [])])
    log.info("Schedule %s is %s", schedule.pk, "paused" if paused else "resumed")


@transaction.atomic
def delete(schedule: ReportSchedule) -> None:
    """Delete it with beat's row, and cancel its open reports; finished reports stay."""
    # Without their schedule, two open reports could violate the constraint on equal ones.
    for report in Report.objects.filter(schedule=schedule, status__in=OPEN):
        report.mark_cancelled()
    ReportSchedule.objects.filter(pk=schedule.pk).delete()
    schedule.periodic_task.delete()
    log.info("Schedule %s is deleted", schedule.pk)


def shown(schedule: ReportSchedule) -> str:
    """Say all that somebody agrees to who changes, runs or deletes it as the page shows it; makes a query."""
    # With their addresses: names need not differ.
    people = [f"{texts.isolated(row.name)} <{row.email}>".strip() for row in schedule.recipients.order_by("pk")]
    paused = ", paused" if schedule.is_paused else ""
    what = f"{texts.isolated(schedule.name)}: {schedule.what}"
    return f"{what}; {schedule.periodic_task.scheduler}{paused}; for {', '.join(people) or 'no one'}"


def when(schedule: ReportSchedule) -> str:
    """Say for its page at which times it runs."""
    times = schedule.periodic_task.crontab
    return in_words(times) if times else str(schedule.periodic_task.scheduler)


def next_run(schedule: ReportSchedule) -> datetime:
    """Return its first unhandled slot, which may be in the past."""
    return following(schedule.periodic_task.schedule, seen_to(schedule))


def seen_to(schedule: ReportSchedule) -> datetime:
    """Return its last handled slot, or the time of its last change."""
    row = schedule.periodic_task
    # A slot at the very start counts.
    start = row.start_time and row.start_time - timedelta.resolution
    return max(filter(None, [schedule.last_due_at, row.date_changed, start]))


def told(moment: datetime, zone: tzinfo) -> str:
    """Format the moment in the time zone, with the zone's name."""
    return f"{timezone.localtime(moment, zone):%A %d %B %Y, %H:%M %Z}"


def due_at(schedule: ReportSchedule) -> datetime | None:
    """Return its latest slot that is due and unhandled, or None."""
    times, now = schedule.periodic_task.schedule, timezone.now()
    due, last = None, shortly_before(times, seen_to(schedule), now)
    # A clocked schedule has a single time, and returns it again when it has passed.
    while last < (run := following(times, last)) <= now:
        due = last = run
    return due


def shortly_before(times: BaseSchedule, last: datetime, now: datetime) -> datetime:
    """Return `last`, or a later moment after which there is a slot: those of a month are not counted one by one."""
    if every := getattr(times, "run_every", None):
        return last + max(0, (now - last) // every - 1) * every
    ago = timedelta(minutes=1)
    while now - ago > last:
        if now - ago < following(times, now - ago) <= now:
            return now - ago
        ago *= 2
    return last


def all_due() -> list[ReportSchedule]:
    """Return the schedules that are due; makes a query."""
    running = ReportSchedule.objects.filter(periodic_task__enabled=True).select_related("periodic_task__crontab")
    return [schedule for schedule in running.order_by("pk") if is_due(schedule)]


def is_due(schedule: ReportSchedule) -> bool:
    """Return whether it is due; not if its times cannot be read, or never come, as the admin may set them."""
    try:
        return due_at(schedule) is not None
    except UNREADABLE:
        log.exception("Schedule %s is left out until its times are corrected", schedule.pk)
        return False


@transaction.atomic
def plan_due(schedule_id: str) -> Report | None:
    """Create the report that is due now, once per slot; None if there is none."""
    running = ReportSchedule.objects.filter(periodic_task__enabled=True).select_related("periodic_task__crontab")
    schedule = running.filter(pk=schedule_id).first()
    due = due_at(schedule) if schedule else None
    if schedule is None or due is None or not schedule.mark_seen_to(due):
        log.info("Schedule %s: nothing is due", schedule_id)
        return None
    return plan(schedule, due, slot=timezone.localdate(due, schedule.zone))


@transaction.atomic
def run_now(schedule: ReportSchedule) -> Report | None:
    """Create a report outside the schedule, or return the open one. Raises `TooMany`."""
    hold(schedule.made_by)
    if not Report.objects.filter(schedule=schedule, slot=None, status__in=OPEN).exists():
        Report.objects.make_room(schedule.made_by)
    return plan(schedule, timezone.now(), slot=None)


def plan(schedule: ReportSchedule, moment: datetime, slot: date | None) -> Report | None:
    """Create one report for all recipients; None if none of them may read it any more."""
    people = recipients(schedule)
    if not people:
        log.warning("Schedule %s: none of its recipients may read reports any more", schedule.pk)
        return None
    same = {"schedule": schedule, "slot": slot} | ({} if slot else {"status__in": OPEN})
    report, is_new = Report.objects.get_or_create(**same, defaults=facts(schedule, moment))
    if is_new:
        report.readers.set(people)
    return report


def facts(schedule: ReportSchedule, moment: datetime) -> dict[str, Any]:
    # Days in the shop's time zone, not the schedule's: only those are sure to be over.
    start, end = days(Period(schedule.period), timezone.localdate(moment)) if schedule.is_dated else (None, None)
    what = {"kind": schedule.kind, "format": schedule.format, "start": start, "end": end}
    return {"requested_by": schedule.made_by, **what, **Report.lease.fresh()}


def recipients(schedule: ReportSchedule) -> list[User]:
    return list(staff_with("reports.view_report").filter(report_schedules=schedule).order_by("pk"))


def days(period: Period, today: date) -> tuple[date, date]:
    """Return the first and the last day of the period that precedes that day."""
    yesterday = today - timedelta(days=1)
    if period == Period.LAST_WEEK:
        sunday = today - timedelta(days=today.isoweekday())
        return sunday - timedelta(days=6), sunday
    if period == Period.LAST_MONTH:
        end = today.replace(day=1) - timedelta(days=1)
        return end.replace(day=1), end
    return (yesterday if period == Period.YESTERDAY else today - timedelta(days=7)), yesterday
