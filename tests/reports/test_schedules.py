"""Reports by schedule: when they are due, who reads them, and once per slot whatever runs twice."""

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import ProtectedError
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.formats import date_format
from django_celery_beat.models import CrontabSchedule, PeriodicTask, PeriodicTasks

from accounts.models import Notification, User
from myproject.celery import app
from myproject.monitoring.beat import Scheduler, following
from reports import erasure, planning, services, tasks
from reports.models import Format, Kind, Period, Report, ReportSchedule, Status
from tests.broker import Broker
from tests.factories import end, make_erasure, make_report, make_schedule, make_user
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
BERLIN = ZoneInfo("Europe/Berlin")
SUNDAY = datetime(2026, 11, 22, 12, tzinfo=BERLIN)
MONDAY = datetime(2026, 11, 23, 8, tzinfo=BERLIN)
AT_EIGHT = {"minute": "0", "hour": "8", "day_of_week": "1"}
DAY, WEEK = timedelta(days=1), timedelta(weeks=1)
# Beat takes no notice of a crontab whose hour is far from now.
THIS_HOUR = {"hour": str(timezone.localtime(timezone=BERLIN).hour), "day_of_week": "*"}


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def office(login: Login, staff: User) -> Client:
    return login(staff)


def made_at(moment: datetime, *recipients: User, **fields: Any) -> ReportSchedule:
    with time_machine.travel(moment, tick=False):
        return make_schedule(*recipients, **fields)


def plan(schedule: ReportSchedule, moment: datetime) -> Report | None:
    with time_machine.travel(moment, tick=False):
        return planning.plan_due(str(schedule.pk))


def posted(person: User, **fields: Any) -> dict[str, Any]:
    chosen = {"name": "Monday sales", "kind": "sales", "format": "csv", "period": "last_week", "every": "week"}
    return (
        chosen
        | {"weekday": "1"}
        | {"day": "", "at": "08:00", "time_zone": "Europe/Berlin", "recipients": [person.pk]}
        | fields
    )


def seen(client: Client, schedule: ReportSchedule) -> dict[str, str]:
    """Return what the schedule's page sends back of what it says."""
    return {"seen": client.get(schedule.get_absolute_url()).context["shown"]}


# --- When ---


def test_nothing_is_due_before_its_time() -> None:
    schedule = made_at(SUNDAY)

    assert plan(schedule, MONDAY - timedelta(seconds=1)) is None


def test_report_is_due_at_its_time_and_is_of_the_days_before() -> None:
    schedule = made_at(SUNDAY)

    report = plan(schedule, MONDAY)

    assert report is not None
    assert (report.start, report.end, report.slot) == (date(2026, 11, 16), date(2026, 11, 22), date(2026, 11, 23))
    assert (report.status, report.requested_by) == (Status.QUEUED, schedule.made_by)


@pytest.mark.proves("reports.tasks.check_due_schedules", "twice")
def test_report_is_made_once_per_slot_and_again_a_week_later() -> None:
    schedule = made_at(SUNDAY)

    made = [plan(schedule, MONDAY + after) for after in (timedelta(), timedelta(minutes=1), timedelta(days=6), WEEK)]

    assert [report is not None for report in made] == [True, False, False, True]
    slots = list(Report.objects.order_by("slot").values_list("slot", flat=True))
    assert slots == [date(2026, 11, 23), date(2026, 11, 30)]


def test_slot_is_taken_once_also_by_workers_that_found_it_at_the_same_moment() -> None:
    schedule = made_at(SUNDAY)

    assert [schedule.mark_seen_to(slot) for slot in (MONDAY, MONDAY, MONDAY - WEEK)] == [True, False, False]


def test_report_that_was_missed_is_made_late_and_of_several_only_the_latest() -> None:
    schedule = made_at(SUNDAY)

    report = plan(schedule, MONDAY + 3 * WEEK + timedelta(days=2))

    assert report is not None
    assert (report.slot, report.end) == (date(2026, 12, 14), date(2026, 12, 13))
    assert Report.objects.count() == 1


@pytest.mark.parametrize(
    ("hour", "minute", "before", "runs"),
    [
        # No 02:30 on 29 March: it runs when the clocks have gone on.
        ("2", "30", "2026-03-28T12:00+01:00", ["2026-03-29T01:30+00:00", "2026-03-30T00:30+00:00"]),
        # Two of them on 25 October: it runs once.
        ("2", "30", "2026-10-24T12:00+02:00", ["2026-10-25T00:30+00:00", "2026-10-26T01:30+00:00"]),
        # The clock on the wall is kept.
        ("8", "0", "2026-03-28T12:00+01:00", ["2026-03-29T06:00+00:00", "2026-03-30T06:00+00:00"]),
    ],
)
def test_slot_is_of_the_wall_s_clock_when_the_clocks_change(
    hour: str, minute: str, before: str, runs: list[str]
) -> None:
    schedule = made_at(datetime.fromisoformat(before), when={"hour": hour, "minute": minute, "day_of_week": "*"})
    start = datetime.fromisoformat(runs[0]) - timedelta(hours=3)

    made = []
    for minutes in range(0, 30 * 60, 5):
        moment = start + timedelta(minutes=minutes)
        if plan(schedule, moment):
            made.append(moment)

    assert made == [datetime.fromisoformat(run) for run in runs]


def test_slot_is_a_day_of_the_schedule_s_zone_and_the_days_are_whole_ones_of_the_shop() -> None:
    schedule = made_at(SUNDAY - timedelta(days=1), when={"timezone": "Pacific/Auckland"})

    # Monday 08:00 there, and still Sunday in the shop: that week is not over.
    report = plan(schedule, datetime(2026, 11, 23, 8, tzinfo=ZoneInfo("Pacific/Auckland")))

    assert report is not None
    assert (report.slot, report.end) == (date(2026, 11, 23), date(2026, 11, 15))


@pytest.mark.parametrize(
    ("period", "today", "start", "end"),
    [
        (Period.YESTERDAY, "2026-03-01", "2026-02-28", "2026-02-28"),
        (Period.SEVEN_DAYS, "2026-11-25", "2026-11-18", "2026-11-24"),
        (Period.LAST_WEEK, "2026-11-23", "2026-11-16", "2026-11-22"),
        (Period.LAST_WEEK, "2026-11-29", "2026-11-16", "2026-11-22"),
        (Period.LAST_MONTH, "2026-01-31", "2025-12-01", "2025-12-31"),
        (Period.LAST_MONTH, "2028-03-01", "2028-02-01", "2028-02-29"),
    ],
)
def test_period_has_whole_days(period: Period, today: str, start: str, end: str) -> None:
    days = planning.days(period, date.fromisoformat(today))

    assert days == (date.fromisoformat(start), date.fromisoformat(end))


def test_paused_schedule_makes_nothing_and_does_not_catch_up_when_resumed() -> None:
    schedule = made_at(SUNDAY)
    with time_machine.travel(SUNDAY, tick=False):
        planning.pause(schedule, True)

    while_paused = plan(schedule, MONDAY)
    with time_machine.travel(MONDAY + timedelta(hours=1), tick=False):
        planning.pause(schedule, False)
    resumed = plan(schedule, MONDAY + timedelta(hours=2))
    a_week_later = plan(schedule, MONDAY + WEEK)

    assert (while_paused, resumed, a_week_later is not None) == (None, None, True)


def test_change_of_the_times_makes_nothing_for_a_time_that_was_before_it() -> None:
    schedule = made_at(SUNDAY)
    tuesday = MONDAY + timedelta(days=1)
    plan(schedule, MONDAY)

    with time_machine.travel(tuesday, tick=False):
        when = {"minute": "0", "hour": "7", "day_of_week": "2", "day_of_month": "*", "month_of_year": "*"}
        planning.save(schedule, [make_user(is_staff=True, is_superuser=True)], when | {"timezone": "Europe/Berlin"})

    assert plan(schedule, tuesday + timedelta(minutes=1)) is None
    assert plan(schedule, tuesday + WEEK) is not None


def act(office: Client, action: str, moment: datetime) -> None:
    chosen = {"action": action, "_selected_action": [row.pk for row in PeriodicTask.objects.all()]}
    with time_machine.travel(moment, tick=False):
        office.post("/admin/django_celery_beat/periodictask/", chosen)


def test_schedule_that_the_admin_disabled_does_not_catch_up_when_the_admin_enables_it(office: Client) -> None:
    schedule = made_at(SUNDAY)

    enabled = []
    for action in ("disable_tasks", "toggle_tasks", "enable_tasks"):
        act(office, action, MONDAY + timedelta(hours=1))
        enabled.append(PeriodicTask.objects.get().enabled)

    assert enabled == [False, False, True]
    assert plan(schedule, MONDAY + timedelta(hours=2)) is None
    assert plan(schedule, MONDAY + WEEK) is not None


def test_schedule_that_the_admin_enables_once_more_owes_what_it_owed(office: Client) -> None:
    schedule = made_at(SUNDAY)

    act(office, "enable_tasks", MONDAY + timedelta(hours=1))

    assert plan(schedule, MONDAY + timedelta(hours=2)) is not None


def test_times_that_the_admin_changed_for_all_who_share_them_are_not_made_up_for(office: Client) -> None:
    schedule, tuesday = made_at(SUNDAY), MONDAY + DAY
    plan(schedule, MONDAY)
    times = {"minute": "0", "hour": "7", "day_of_week": "2", "day_of_month": "*", "month_of_year": "*"}

    with time_machine.travel(tuesday, tick=False):
        address = f"/admin/django_celery_beat/crontabschedule/{schedule.periodic_task.crontab.pk}/change/"
        inline = {"periodictask_set-TOTAL_FORMS": "0", "periodictask_set-INITIAL_FORMS": "0"}
        answer = office.post(address, times | inline | {"timezone": "Europe/Berlin"})

    assert answer.status_code == 302
    assert plan(schedule, tuesday + timedelta(minutes=1)) is None
    assert plan(schedule, tuesday + WEEK) is not None


def test_nothing_is_due_before_the_start_that_the_admin_chose() -> None:
    schedule = made_at(SUNDAY)
    PeriodicTask.objects.update(start_time=MONDAY + WEEK)

    assert [plan(schedule, moment) is not None for moment in (MONDAY, MONDAY + WEEK)] == [False, True]


def test_times_that_were_edited_in_the_admin_count() -> None:
    schedule = made_at(SUNDAY)
    with time_machine.travel(SUNDAY, tick=False):
        schedule.periodic_task.crontab = CrontabSchedule.objects.create(minute="0", hour="6", day_of_week="mon")
        schedule.periodic_task.save()

    assert plan(schedule, MONDAY - timedelta(minutes=1)) is not None


@pytest.mark.parametrize(
    ("field", "values", "runs"),
    [
        ("clocked", {"clocked_time": MONDAY}, [MONDAY]),
        ("interval", {"every": 3, "period": "days"}, [SUNDAY + 3 * DAY, SUNDAY + 6 * DAY]),
    ],
)
def test_times_that_the_admin_chose_need_not_be_a_crontab_s(
    field: str, values: dict[str, Any], runs: list[datetime]
) -> None:
    schedule = made_at(SUNDAY)
    row = schedule.periodic_task
    row.crontab, row.one_off = None, field == "clocked"
    setattr(row, field, PeriodicTask._meta.get_field(field).related_model.objects.create(**values))
    with time_machine.travel(SUNDAY, tick=False):
        row.save()

    due, made = [], []
    for moment in (SUNDAY + timedelta(hours=hours) for hours in range(7 * 24)):
        with time_machine.travel(moment, tick=False):
            due += [moment] * len(planning.all_due())
        made += [moment] * bool(plan(schedule, moment))

    assert (due, made) == (runs, runs)


def times_of(field: str, **values: Any) -> PeriodicTask:
    row = PeriodicTask(date_changed=SUNDAY - DAY)
    setattr(row, field, PeriodicTask._meta.get_field(field).related_model(**values))
    return row


@pytest.mark.parametrize("behind", [timedelta(seconds=1), timedelta(hours=5), DAY, 40 * DAY])
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("interval", {"every": 7, "period": "hours"}),
        ("crontab", {"minute": "0"}),
        ("crontab", {"minute": "*/7", "hour": "3", "timezone": "Europe/Berlin"}),
        ("crontab", {"minute": "30", "hour": "2", "day_of_month": "1"}),
        ("clocked", {"clocked_time": MONDAY}),
    ],
)
def test_latest_missed_slot_is_the_one_that_counting_each_would_find(
    field: str, values: dict[str, Any], behind: timedelta
) -> None:
    row, now = times_of(field, **values), SUNDAY + behind
    expected, last = None, SUNDAY
    while last < (run := following(row.schedule, last)) <= now:
        expected = last = run

    with time_machine.travel(now, tick=False):
        found = planning.due_at(ReportSchedule(periodic_task=row, last_due_at=SUNDAY))

    assert found == expected


@pytest.mark.parametrize(
    ("field", "values", "slot"),
    [
        ("interval", {"every": 1, "period": "seconds"}, SUNDAY + 31 * DAY),
        ("crontab", {"minute": "*"}, SUNDAY + 31 * DAY),
    ],
)
def test_schedule_of_seconds_that_is_a_month_behind_catches_up_at_once(
    field: str, values: dict[str, Any], slot: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[datetime] = []

    def counted(times: Any, last: datetime) -> datetime:
        asked.append(last)
        return following(times, last)

    monkeypatch.setattr(planning, "following", counted)

    with time_machine.travel(SUNDAY + 31 * DAY + timedelta(seconds=0.5), tick=False):
        found = planning.due_at(ReportSchedule(periodic_task=times_of(field, **values), last_due_at=SUNDAY))

    assert (found, len(asked) < 10) == (slot, True)


def test_schedule_that_runs_more_often_makes_one_report_a_day() -> None:
    schedule = made_at(SUNDAY, when={"hour": "*", "day_of_week": "*"})

    for hours in range(48):
        plan(schedule, MONDAY + timedelta(hours=hours))

    slots = Report.objects.order_by("slot").values_list("slot", flat=True)
    assert list(slots) == [date(2026, 11, 23), date(2026, 11, 24), date(2026, 11, 25)]


# --- For whom ---


def test_one_report_is_for_all_who_are_staff_still(broker: Broker) -> None:
    one, two, demoted, gone = (make_user(is_staff=True, is_superuser=True) for _ in range(4))
    schedule = made_at(SUNDAY, one, two, demoted, gone)
    User.objects.filter(pk=demoted.pk).update(is_staff=False)
    gone.mark_deleted()

    report = plan(schedule, MONDAY)

    assert report is not None
    assert set(report.readers.all()) == {one, two}


def test_nothing_is_made_without_recipients() -> None:
    person = make_user(is_staff=True, is_superuser=True)
    schedule = made_at(SUNDAY, person)
    person.mark_deleted()

    assert (plan(schedule, MONDAY), Report.objects.count()) == (None, 0)


def test_deleted_account_leaves_the_schedules_and_what_is_others_stays(settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path
    leaver, other = make_user(is_staff=True, is_superuser=True), make_user(is_staff=True, is_superuser=True)
    schedule = made_at(SUNDAY, leaver, other, made_by=leaver)
    shared, own = plan(schedule, MONDAY), make_report(leaver)

    erasure.erase(make_erasure(leaver))

    assert list(schedule.recipients.all()) == [other]
    assert list(Report.objects.all()) == [shared]
    assert list(Report.objects.readable_by(other)) == [shared]
    assert own.pk


# --- Beat's row ---


def test_beat_s_row_has_the_times_and_only_the_schedule_s_id() -> None:
    schedule = make_schedule()

    row = PeriodicTask.objects.get()
    crontab = row.crontab
    assert (row.task, row.args, json.loads(row.kwargs)) == (
        "reports.tasks.plan_scheduled_report",
        "[]",
        {"schedule_id": str(schedule.pk)},
    )
    assert (crontab.hour, crontab.minute, crontab.day_of_week, str(crontab.timezone)) == (
        "8",
        "0",
        "1",
        "Europe/Berlin",
    )
    assert row.task in app.tasks
    assert row.enabled


def test_sync_schedules_leaves_it_alone() -> None:
    make_schedule()
    before = PeriodicTask.objects.values().get()

    for _ in range(2):
        call_command("sync_schedules", stdout=StringIO())

    assert PeriodicTask.objects.filter(pk=before["id"]).values().get() == before


def test_beat_reads_it_and_drops_it_when_it_is_paused_or_deleted() -> None:
    schedule = make_schedule(when=THIS_HOUR)
    name = schedule.periodic_task.name
    known = [name in Scheduler(app=app, lazy=True).all_as_schedule()]
    for change in (lambda: planning.pause(schedule, True), lambda: planning.pause(schedule, False)):
        change()
        known.append(name in Scheduler(app=app, lazy=True).all_as_schedule())
    planning.delete(schedule)
    known.append(name in Scheduler(app=app, lazy=True).all_as_schedule())

    assert known == [True, False, True, False]
    assert PeriodicTask.objects.count() == ReportSchedule.objects.count() == 0


@pytest.mark.parametrize("act", [lambda s: planning.pause(s, True), planning.delete])
def test_beat_s_row_changes_in_the_same_transaction(act: Callable[[ReportSchedule], None]) -> None:
    schedule = make_schedule()

    with transaction.atomic():
        act(schedule)
        transaction.set_rollback(True)

    assert (ReportSchedule.objects.count(), PeriodicTask.objects.get().enabled) == (1, True)


def test_admin_cannot_delete_beat_s_row_from_under_a_schedule() -> None:
    make_schedule()

    with pytest.raises(ProtectedError):
        PeriodicTask.objects.all().delete()


def test_schedule_works_when_the_same_crontab_is_there_twice() -> None:
    first = make_schedule()
    CrontabSchedule.objects.create(minute="0", hour="8", day_of_week="1", timezone="Europe/Berlin")

    assert make_schedule().periodic_task.crontab == first.periodic_task.crontab


# --- Tasks ---


@pytest.mark.proves("reports.tasks.plan_scheduled_report", "twice", page="reports:schedules")
def test_plan_scheduled_report_twice_is_once(broker: Broker) -> None:
    schedule = made_at(SUNDAY)

    with time_machine.travel(MONDAY, tick=False):
        for _ in range(2):
            tasks.plan_scheduled_report(schedule_id=str(schedule.pk))

    report = Report.objects.get()
    assert broker.messages() == [("reports", "reports.tasks.generate_report", {"report_id": str(report.pk)})]


def test_plan_scheduled_report_does_nothing_when_the_schedule_is_gone(broker: Broker) -> None:
    schedule = made_at(SUNDAY)
    planning.delete(schedule)

    tasks.plan_scheduled_report(schedule_id=str(schedule.pk))

    assert (Report.objects.count(), broker.messages()) == (0, [])


def test_check_due_schedules_queues_what_was_missed(broker: Broker) -> None:
    due, paused, later = made_at(SUNDAY), made_at(SUNDAY), made_at(MONDAY)
    with time_machine.travel(SUNDAY, tick=False):
        planning.pause(paused, True)

    with time_machine.travel(MONDAY + timedelta(minutes=1), tick=False):
        for _ in range(2):
            tasks.check_due_schedules()

    assert later.pk
    message = ("default", "reports.tasks.plan_scheduled_report", {"schedule_id": str(due.pk)})
    assert broker.messages() == [message] * 2


def test_database_refuses_a_slot_twice_and_two_open_runs_by_hand() -> None:
    schedule = make_schedule()
    make_report(schedule=schedule, slot=date(2026, 11, 23))
    make_report(schedule=schedule)

    for constraint, slot in (("report_once_per_slot", date(2026, 11, 23)), ("report_one_open_run_by_hand", None)):
        with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
            make_report(schedule=schedule, slot=slot)


# --- Pages ---


def test_schedule_is_made_on_the_page(office: Client, staff: User) -> None:
    answer = office.post("/reports/schedules/", posted(staff, time_zone="America/New_York", at="09:30"))

    schedule = ReportSchedule.objects.get()
    crontab = schedule.periodic_task.crontab
    assert (answer.status_code, answer["Location"]) == (302, schedule.get_absolute_url())
    assert (crontab.hour, crontab.minute, crontab.day_of_week, crontab.day_of_month) == ("9", "30", "1", "*")
    assert (str(crontab.timezone), schedule.made_by, list(schedule.recipients.all())) == (
        "America/New_York",
        staff,
        [staff],
    )


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"every": "day"}, ("*", "*")),
        ({"every": "week", "weekday": "0"}, ("0", "*")),
        ({"every": "month", "day": "28"}, ("*", "28")),
    ],
)
def test_form_says_the_times_as_crontab_does_and_shows_them_again(
    chosen: dict[str, str], expected: tuple[str, str], office: Client, staff: User
) -> None:
    office.post("/reports/schedules/", posted(staff, **chosen))

    schedule = ReportSchedule.objects.get()
    crontab = schedule.periodic_task.crontab
    form = office.get(schedule.get_absolute_url()).context["form"]
    assert (crontab.day_of_week, crontab.day_of_month) == expected
    assert {name: form[name].value() for name in chosen} == chosen
    assert form["at"].value() == "08:00"


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"recipients": []}, "recipients", "Choose at least one person."),
        ({"recipients": ["0"]}, "recipients", "One of these people is no longer"),
        ({"recipients": ["x"]}, "recipients", "One of these people is not known."),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "There is no time zone Mars/Olympus."),
        ({"time_zone": "../../etc/passwd"}, "time_zone", "There is no time zone"),
        ({"every": "month", "day": "31"}, "day", "Choose a day from 1 to 28: not every month has a 29th"),
        ({"every": "month", "day": "0"}, "day", "Choose a day from 1 to 28"),
        ({"every": "month", "day": ""}, "day", "Say on which day it runs every month."),
        ({"every": "week", "weekday": ""}, "weekday", "Say on which day it runs every week."),
        ({"every": "week", "weekday": "8"}, "weekday", "Select a valid choice."),
        ({"every": "hour"}, "every", "Select a valid choice."),
        ({"at": "25:00"}, "at", "Enter a time, such as 08:00."),
        ({"kind": "personal_data"}, "kind", "Select a valid choice."),
        ({"kind": "statement"}, "kind", "Select a valid choice."),
        ({"format": "docx"}, "format", "Select a valid choice."),
        ({"format": ""}, "format", "This field is required."),
        (
            {"format": "pdf"},
            "format",
            "Order lines: this format is not available. Choose one of these: CSV, Excel (XLSX), P",
        ),
        ({"period": "for ever"}, "period", "Select a valid choice."),
        ({"name": ""}, "name", "This field is required."),
        ({"name": "x" * 101}, "name", "Ensure this value has at most 100 characters"),
    ],
)
def test_form_explains_what_is_wrong_and_makes_nothing(
    fields: dict[str, Any], field: str, message: str, office: Client, staff: User
) -> None:
    answer = office.post("/reports/schedules/", posted(staff, **fields))

    assert (answer.status_code, ReportSchedule.objects.count(), PeriodicTask.objects.count()) == (422, 0, 0)
    assert list(answer.context["form"].errors) == [field]
    assert message in str(answer.context["form"].errors)


@pytest.mark.parametrize(
    ("kind", "format_", "what", "title"),
    [
        ("sales_by_day", "pdf", "Sales by day as PDF: Last week, Monday to Sunday", "Sales by day, "),
        ("sales_by_customer", "xlsx", "Sales by customer as Excel (XLSX): Last week, Monday to Sunday", "Sales by c"),
        ("sales", "parquet", "Order lines as Parquet: Last week, Monday to Sunday", "Order lines, "),
        ("stock", "xlsx", "Stock as Excel (XLSX)", "Stock"),
    ],
)
def test_schedule_makes_what_was_chosen(
    kind: str, format_: str, what: str, title: str, office: Client, staff: User, media: None
) -> None:
    office.post("/reports/schedules/", posted(staff, kind=kind, format=format_))
    schedule = ReportSchedule.objects.get()

    office.post(f"{schedule.get_absolute_url()}run/", seen(office, schedule))
    report = Report.objects.get()
    services.write_report(report)

    report.refresh_from_db()
    page = office.get(schedule.get_absolute_url()).content.decode()
    assert (report.kind, report.format, report.is_ready) == (kind, format_, True)
    assert (schedule.what, f"<dd>{what}</dd>" in page) == (what, True)
    assert report.title.startswith(title)
    assert str(report.file.name).endswith(f".{format_}")


def test_notice_of_a_scheduled_report_names_kind_and_format(staff: User, media: None) -> None:
    report = planning.run_now(make_schedule(staff, kind=Kind.STOCK, format=Format.XLSX))
    assert report is not None

    services.write_report(report)

    notice = Notification.objects.get()
    assert (notice.subject, notice.message) == ("Stock is ready", "Format: Excel (XLSX). Rows: 0.")


def test_database_refuses_a_schedule_in_a_format_that_its_kind_does_not_have() -> None:
    with pytest.raises(IntegrityError, match="reportschedule_format_of_kind"), transaction.atomic():
        make_schedule(kind=Kind.STOCK, format=Format.PARQUET)


def test_customer_is_no_recipient(office: Client, customer: User) -> None:
    answer = office.post("/reports/schedules/", posted(customer))

    assert list(answer.context["form"].errors) == ["recipients"]


def test_schedule_is_changed_on_its_page(office: Client, staff: User) -> None:
    schedule = make_schedule()
    planning.pause(schedule, True)

    office.post(
        schedule.get_absolute_url(), posted(staff, name="Daily", every="day", at="06:15", **seen(office, schedule))
    )

    schedule = ReportSchedule.objects.get()
    row = PeriodicTask.objects.get()
    assert (schedule.name, row.crontab.hour, row.crontab.minute, row.crontab.day_of_week) == ("Daily", "6", "15", "*")
    assert (row.enabled, row.name.startswith("Report: Daily")) == (False, True)
    assert list(schedule.recipients.all()) == [staff]


CHANGES: list[Callable[[ReportSchedule], object]] = [
    lambda schedule: ReportSchedule.objects.update(period="yesterday"),
    lambda schedule: ReportSchedule.objects.update(kind="stock"),
    lambda schedule: schedule.recipients.set([make_user(is_staff=True, is_superuser=True)]),
    lambda schedule: planning.pause(schedule, True),
    lambda schedule: CrontabSchedule.objects.update(hour="23"),
    # Somebody else of the same name.
    lambda schedule: schedule.recipients.set([make_user(name="Robin", is_staff=True, is_superuser=True)]),
]


@pytest.mark.parametrize("change", CHANGES)
def test_page_undoes_and_runs_nothing_that_was_changed_meanwhile(
    change: Callable[[ReportSchedule], object], office: Client, staff: User
) -> None:
    schedule = make_schedule(make_user(name="Robin", is_staff=True, is_superuser=True))
    url, before = schedule.get_absolute_url(), seen(office, schedule)
    change(schedule)
    is_running = PeriodicTask.objects.get().enabled

    for action in ("run", "delete", "pause", "resume"):
        office.post(f"{url}{action}/", before)
        assert PeriodicTask.objects.get().enabled == is_running
    refused = office.post(url, posted(staff, name="Mine", **before))
    between = ReportSchedule.objects.get().name, Report.objects.count()
    office.post(url, posted(staff, name="Mine", seen=refused.context["shown"]))

    assert (refused.status_code, between) == (422, ("Monday sales", 0))
    assert "It was changed meanwhile" in refused.content.decode()
    assert ReportSchedule.objects.get().name == "Mine"


@pytest.mark.parametrize("act", [lambda row: planning.pause(row, True), lambda row: planning.save(row, [], AT_EIGHT)])
def test_change_of_a_schedule_leaves_alone_what_beat_and_the_sweep_write(act: Callable[[ReportSchedule], None]) -> None:
    schedule = make_schedule()
    PeriodicTask.objects.update(total_run_count=7)
    schedule_due = timezone.now()
    ReportSchedule.objects.update(last_due_at=schedule_due)

    act(schedule)

    assert PeriodicTask.objects.get().total_run_count == 7
    assert ReportSchedule.objects.get().last_due_at == schedule_due


def test_page_of_a_new_schedule_sent_again_with_something_else_is_another_schedule(office: Client, staff: User) -> None:
    token = "5b1f2c1e-0000-4000-8000-000000000000"

    for name in ("One", "One", "Two"):
        office.post("/reports/schedules/", posted(staff, name=name, token=token))

    assert list(ReportSchedule.objects.order_by("name").values_list("name", flat=True)) == ["One", "Two"]


def test_page_keeps_the_old_name_in_its_heading_when_the_change_is_refused(office: Client, staff: User) -> None:
    schedule = make_schedule()

    answer = office.post(schedule.get_absolute_url(), posted(staff, name="New", at="late"))

    assert (answer.status_code, "Monday sales</bdi></h1>" in answer.content.decode()) == (422, True)
    assert ReportSchedule.objects.get().name == "Monday sales"


def test_page_says_the_next_run_in_the_schedule_s_own_time(office: Client) -> None:
    schedule = made_at(SUNDAY, when={"timezone": "America/New_York"})

    with time_machine.travel(SUNDAY, tick=False):
        page = office.get(schedule.get_absolute_url()).content.decode()
        listed = office.get("/reports/schedules/").content.decode()

    assert "Monday 23 November 2026, 08:00 EST" in page
    assert "Monday 23 November 2026, 08:00 EST" in listed


def test_page_works_when_the_admin_made_an_interval_of_it(office: Client) -> None:
    schedule = make_schedule()
    call_command("sync_schedules", stdout=StringIO())
    row, interval = schedule.periodic_task, PeriodicTask.objects.get(name="Heartbeat").interval
    row.crontab, row.interval = None, interval
    row.save()

    answer = office.get(schedule.get_absolute_url())

    assert (answer.status_code, "every 60 seconds" in answer.content.decode()) == (200, True)


def test_buttons_pause_resume_and_delete(office: Client) -> None:
    schedule = make_schedule()
    enabled = []
    for button in ("pause", "pause", "resume"):
        office.post(f"{schedule.get_absolute_url()}{button}/", seen(office, schedule))
        enabled.append(PeriodicTask.objects.get().enabled)

    office.post(f"{schedule.get_absolute_url()}delete/", seen(office, schedule))

    assert enabled == [False, False, True]
    assert (ReportSchedule.objects.count(), PeriodicTask.objects.count()) == (0, 0)


def test_delete_cancels_what_is_being_made_also_when_it_is_the_same_report_several_times(office: Client) -> None:
    schedule = made_at(SUNDAY, when={"day_of_week": "*"})
    made = [plan(schedule, MONDAY + after) for after in (timedelta(), DAY, 2 * DAY)]
    with time_machine.travel(MONDAY + 2 * DAY, tick=False):
        made.append(planning.run_now(schedule))
    ready, *still_made = [report for report in made if report]
    ready.mark_ready("reports/x.csv", row_count=1, size=1)
    own = make_report(schedule.made_by, start=ready.start, end=ready.end)

    answer = office.post(f"{schedule.get_absolute_url()}delete/", seen(office, schedule))

    assert answer.status_code == 302
    statuses = dict(Report.objects.values_list("pk", "status"))
    assert [statuses[report.pk] for report in still_made] == [Status.CANCELLED] * 3
    assert (statuses[ready.pk], statuses[own.pk]) == (Status.READY, Status.QUEUED)


def test_run_now_makes_one_report_beside_the_schedule_however_often_it_is_clicked(office: Client, staff: User) -> None:
    schedule = make_schedule(staff)

    for _ in range(2):
        office.post(f"{schedule.get_absolute_url()}run/", seen(office, schedule))
    report = Report.objects.get()
    end(report, "No.")
    office.post(f"{schedule.get_absolute_url()}run/", seen(office, schedule))

    assert (report.slot, list(report.readers.all()), Report.objects.count()) == (None, [staff], 2)


@pytest.mark.django_db(transaction=True)
def test_run_now_queues_the_report(office: Client, broker: Broker) -> None:
    schedule = make_schedule()
    office.post(f"{schedule.get_absolute_url()}run/", seen(office, schedule))

    assert broker.messages() == [
        ("reports", "reports.tasks.generate_report", {"report_id": str(Report.objects.get().pk)})
    ]


def test_run_now_says_so_without_recipients(office: Client) -> None:
    person = make_user(is_staff=True, is_superuser=True)
    schedule = make_schedule(person)
    person.mark_deleted()

    page = office.post(f"{schedule.get_absolute_url()}run/", seen(office, schedule), follow=True).content.decode()

    assert "no one would get it" in page
    assert Report.objects.count() == 0


def test_history_links_to_what_one_may_read_only(office: Client, staff: User) -> None:
    schedule = made_at(SUNDAY)
    foreign, own = plan(schedule, MONDAY), plan(schedule, MONDAY + WEEK)
    assert foreign is not None
    assert own is not None
    own.readers.add(staff)

    page = office.get(schedule.get_absolute_url()).content.decode()

    days = [date_format(day, "j M Y") for day in (own.start, foreign.start) if day]
    assert [day in page for day in days] == [True, True]
    assert (own.get_absolute_url() in page, foreign.get_absolute_url() in page) == (True, False)


@pytest.mark.parametrize("path", ["", "run/", "pause/", "resume/", "delete/"])
def test_schedules_are_for_staff(path: str, login: Login, customer: User) -> None:
    schedule = make_schedule()

    answer = login(customer).post(f"{schedule.get_absolute_url()}{path}", posted(customer))

    assert (answer.status_code, PeriodicTask.objects.get().enabled) == (403, True)
    assert login(customer).get("/reports/schedules/").status_code == 403


@pytest.mark.parametrize("path", ["run/", "pause/", "resume/", "delete/"])
def test_get_changes_nothing(path: str, office: Client) -> None:
    assert office.get(f"{make_schedule().get_absolute_url()}{path}").status_code == 405


def test_pages_make_as_many_queries_for_three_rows_as_for_one(office: Client) -> None:
    schedule = make_schedule()
    counts = []
    for days in ((1,), (2, 3)):
        for day in days:
            make_report(schedule=schedule, slot=date(2026, 11, day))
            make_schedule()
        with CaptureQueriesContext(connection) as queries:
            office.get("/reports/schedules/")
            office.get(schedule.get_absolute_url())
        counts.append(len(queries))

    assert counts[0] == counts[1]


# --- In the real processes ---


@pytest.mark.proves("reports.tasks.plan_scheduled_report", "reports.tasks.check_due_schedules", "worker")
@pytest.mark.parametrize("lost", ["nothing", "beat's message"])
@pytest.mark.django_db(transaction=True)
def test_report_is_made_once_and_mailed_to_each_after_beat_was_down_at_its_time(lost: str, shop: Shop) -> None:
    people = [
        make_user(email=f"{name}-{len(lost)}@example.com", is_staff=True, is_superuser=True) for name in ("sam", "sue")
    ]
    schedule = make_schedule(*people, when=THIS_HOUR)
    row = PeriodicTask.objects.filter(pk=schedule.periodic_task.pk)
    if lost == "nothing":
        # So that beat itself has to do it, and the sweep is not the one.
        PeriodicTask.objects.filter(task="reports.tasks.check_due_schedules").update(enabled=False)
    else:
        # Beat believes that it has just sent it, and the message came nowhere.
        row.update(last_run_at=timezone.now())

    long_ago = timezone.now() - timedelta(days=8)
    row.update(date_changed=long_ago, **({"last_run_at": long_ago} if lost == "nothing" else {}))
    PeriodicTasks.update_changed()
    wait_for(lambda: Notification.objects.filter(mail_sent_at__isnull=False).count() == 2, "the mails")
    for _ in range(3):
        tasks.plan_scheduled_report.delay(schedule_id=str(schedule.pk))
    shop.settle()

    report = Report.objects.get()
    assert (report.status, report.schedule, set(report.readers.all())) == (Status.READY, schedule, set(people))
    for person in people:
        mails = shop.sandbox(f"/mail.json?to={person.email}")
        assert [mail["subject"] for mail in mails] == [f"{report.title} is ready"]
