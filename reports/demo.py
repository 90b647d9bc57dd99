"""The demo's reports: some ready, one failed, a schedule with its slots, and a month-end pack, all made for real."""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from celery import states
from django.conf import settings
from django.utils import timezone
from django_celery_results.models import TaskResult

from accounts.models import User
from myproject.demo import Past, Told
from orders.demo import notices_sent
from orders.models import Order

from . import daily_sales, packs, planning, services
from .models import Format, Kind, Pack, Period, Report, ReportSchedule, Status

SLOW = "It took longer than 8 minutes."
ASKED = [
    (Kind.SALES_BY_DAY, packs.TO_READ, 30, 2),
    (Kind.SALES_BY_PRODUCT, Format.XLSX, 30, 9),
    (Kind.SALES, Format.CSV, 7, 26),
    (Kind.STOCK, Format.XLSX, 0, 50),
]
MONDAYS = 3


def fill() -> None:
    """An empty shop needs no reports."""


def remember(past: Past) -> Told:
    """Count the history's sales, and make the reports that staff has asked for since."""
    person = User.objects.filter(email="staff@example.com").first()
    if person is None or Report.objects.exists() or not Order.objects.exists():
        return {}
    for _ in daily_sales.rebuild():
        pass
    for kind, form, days, hours in ASKED:
        ended = past.ago(hours=hours)
        make(Report.objects.create(**asked(person, kind, form, days, ended)), ended)
    fail(person, past.ago(hours=5))
    expire(person, past.ago(days=41))
    mails = [*run_schedule(person, past), *make_pack(person, past)]
    return {"mails": mails}


def asked(person: User, kind: Kind, form: Format, days: int, ended: datetime) -> dict[str, Any]:
    yesterday = timezone.localdate(ended) - timedelta(days=1)
    dates = {"start": yesterday - timedelta(days=days - 1), "end": yesterday} if days else {}
    return {"requested_by": person, "kind": kind, "format": form, **dates, **Report.lease.fresh()}


def make(report: Report, ended: datetime) -> None:
    """Write this report, the only one that waits, and date it back."""
    claimed = Report.objects.claim(first=Report.objects.filter(pk=report.pk), status=Status.RUNNING)
    for each in claimed:
        services.write_report(each)
    date_back(report, ended)


def date_back(report: Report, ended: datetime) -> None:
    times = {"created_at": ended - timedelta(seconds=1.4), "started_at": ended - timedelta(seconds=1.2)}
    Report.objects.filter(pk=report.pk).update(finished_at=ended, **times)


def fail(person: User, ended: datetime) -> None:
    what = asked(person, Kind.SALES, Format.XLSX, 80, ended) | {"due_at": None, "attempts": 4}
    report = Report.objects.create(status=Status.FAILED, error=f"{SLOW} We tried 4 times.", **what)
    date_back(report, ended)
    if settings.RESULTS_IN_DATABASE:
        result = TaskResult.objects.create(
            task_id=str(report.pk),
            task_name="reports.tasks.generate_report",
            task_kwargs=f"\"{{'report_id': '{report.pk}'}}\"",
            status=states.FAILURE,
            result='{"exc_type": "PermanentError"}',
        )
        TaskResult.objects.filter(pk=result.pk).update(date_created=ended, date_done=ended)


def expire(person: User, ended: datetime) -> None:
    what = asked(person, Kind.SALES_BY_CUSTOMER, Format.XLSX, 31, ended) | {"due_at": None, "attempts": 1}
    date_back(Report.objects.create(status=Status.EXPIRED, row_count=13, size=6_120, **what), ended)


def run_schedule(person: User, past: Past) -> Iterator[dict[str, Any]]:
    """Make a weekly schedule, and its reports of the last Mondays; yield the notices."""
    schedule = ReportSchedule(
        name="Sales for the Monday meeting",
        kind=Kind.SALES_BY_CATEGORY,
        format=packs.TO_READ,
        period=Period.LAST_WEEK,
        made_by=person,
    )
    when = {"minute": "0", "hour": "8", "day_of_month": "*", "month_of_year": "*", "day_of_week": "1"}
    planning.save(schedule, [person], when | {"timezone": settings.TIME_ZONE})
    today = timezone.localdate()
    for ago in reversed(range(MONDAYS)):
        monday = today - timedelta(days=today.weekday() + 7 * ago)
        moment = timezone.make_aware(datetime.combine(monday, time(8, 0, 2)))
        if moment < past.now and (report := planning.plan(schedule, moment, slot=monday)):
            make(report, moment)
            yield from notices_sent(person, moment)


def make_pack(person: User, past: Past) -> Iterator[dict[str, Any]]:
    """Make the pack of last month, on its first morning or today's; yield the notice."""
    last_month = (timezone.localdate().replace(day=1) - timedelta(days=1)).replace(day=1)
    pack = packs.ask_for_pack(person, last_month)
    ended = pack_time(past)
    for report in pack.members.order_by("kind", "pk"):
        make(report, ended - timedelta(seconds=3))
    for claimed in Pack.objects.claim_complete(str(pack.pk)):
        packs.write_pack(claimed)
    Pack.objects.filter(pk=pack.pk).update(created_at=ended - timedelta(seconds=6), finished_at=ended)
    yield from notices_sent(person, ended)


def pack_time(past: Past) -> datetime:
    """Return when the pack was made: in the morning of the first, but within the time that files are kept."""
    first: date = timezone.localdate().replace(day=1)
    morning = timezone.make_aware(datetime.combine(first, time(9, 30)))
    return min(max(morning, past.ago(days=20)), past.ago(minutes=90))
