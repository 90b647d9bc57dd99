"""When beat runs what, also when the clocks change; what it survives; and what the admin says of it."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule

from accounts.models import User
from myproject.celery import app
from myproject.monitoring.beat import Scheduler, next_runs
from tests.broker import Broker

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
LIST = reverse("admin:django_celery_beat_periodictask_changelist")
NOWHERE = "redis://127.0.0.1:1/0"


def make_crontab(zone: ZoneInfo = BERLIN, name: str = "Nightly", **when: str) -> PeriodicTask:
    crontab = CrontabSchedule.objects.create(timezone=zone, **{"hour": "*", "minute": "0"} | when)
    return PeriodicTask.objects.create(name=name, task="myproject.tasks.heartbeat", crontab=crontab)


def make_interval(name: str = "Often", every: int = 30, **fields: Any) -> PeriodicTask:
    interval = IntervalSchedule.objects.create(every=every, period=IntervalSchedule.SECONDS)
    return PeriodicTask.objects.create(name=name, task="myproject.tasks.heartbeat", interval=interval, **fields)


def simulate(row: PeriodicTask, count: int) -> list[datetime]:
    """Ask the schedule each half minute, as beat does, and return the first times at which it was due."""
    schedule, last = row.schedule, row.last_run_at
    moment, runs = last, list[datetime]()
    while len(runs) < count:
        moment += timedelta(seconds=30)
        schedule.nowfun = lambda: moment  # noqa: B023
        if schedule.is_due(last)[0]:
            runs.append(moment)
            last = moment
    return runs


def local(runs: list[datetime], zone: ZoneInfo) -> list[str]:
    return [f"{run.astimezone(zone):%d %H:%M %Z}" for run in runs]


# --- When it runs next ---


@pytest.mark.parametrize(
    ("zone", "evening", "when", "runs"),
    [
        # 02:30 is not there on the night in spring, and twice (or in New York 01:30) on the one in autumn.
        (BERLIN, (2026, 3, 28, 20), {"hour": "2", "minute": "30"}, ["29 03:30 CEST", "30 02:30 CEST"]),
        (BERLIN, (2026, 10, 24, 20), {"hour": "2", "minute": "30"}, ["25 02:30 CEST", "26 02:30 CET"]),
        (BERLIN, (2026, 3, 28, 20), {"hour": "3", "minute": "10"}, ["29 03:10 CEST", "30 03:10 CEST"]),
        (BERLIN, (2026, 10, 24, 20), {"hour": "3", "minute": "10"}, ["25 03:10 CET", "26 03:10 CET"]),
        (NEW_YORK, (2026, 3, 7, 20), {"hour": "2", "minute": "30"}, ["08 03:30 EDT", "09 02:30 EDT"]),
        (NEW_YORK, (2026, 10, 31, 20), {"hour": "1", "minute": "30"}, ["01 01:30 EDT", "02 01:30 EST"]),
        # Why what runs often is an interval: an hour of a crontab is skipped.
        (BERLIN, (2026, 10, 25, 1), {}, ["25 02:00 CEST", "25 03:00 CET"]),
        (NEW_YORK, (2026, 11, 1, 0), {}, ["01 01:00 EDT", "01 02:00 EST"]),
    ],
)
def test_next_runs_are_those_of_beat_when_the_clocks_change(
    zone: ZoneInfo, evening: tuple[int, ...], when: dict[str, str], runs: list[str]
) -> None:
    row = make_crontab(zone, **when)
    row.last_run_at = datetime(*evening, tzinfo=zone).astimezone(UTC)  # type: ignore[misc,arg-type]

    with time_machine.travel(row.last_run_at + timedelta(seconds=1), tick=False):
        found = next_runs(row, 2)

    assert local(found, zone) == runs
    assert found == simulate(row, 2)


@pytest.mark.parametrize("day", [datetime(2026, 3, 29, 0, 59, tzinfo=UTC), datetime(2026, 10, 25, 0, 59, tzinfo=UTC)])
def test_intervals_take_no_notice_of_the_clocks(day: datetime) -> None:
    row = make_interval(every=60)
    row.last_run_at = day

    with time_machine.travel(day, tick=False):
        found = next_runs(row, 3)

    assert found == [day + timedelta(minutes=number) for number in (1, 2, 3)]


def test_next_run_of_what_is_overdue_is_the_one_that_was_missed() -> None:
    missed = timezone.now() - timedelta(hours=2)
    row = make_interval(every=3600)
    row.last_run_at = missed

    first, second = next_runs(row, 2)

    assert first == missed + timedelta(hours=1)
    assert second > timezone.now()


@pytest.mark.parametrize("fields", [{"enabled": False}, {"one_off": True, "total_run_count": 1}])
def test_nothing_runs_next_when_the_schedule_is_off(fields: dict[str, Any]) -> None:
    assert next_runs(make_interval(**fields), 5) == []


def test_next_runs_begin_with_the_start_and_end_with_the_expiry() -> None:
    start = timezone.now() + timedelta(days=1)
    row = make_interval(every=60, start_time=start, expires=start + timedelta(minutes=3))

    assert next_runs(row, 9) == [start + timedelta(minutes=number) for number in range(3)]


# --- What beat survives ---


def bad_rows() -> Iterator[Callable[[], object]]:
    yield lambda: make_crontab(name="30 February", day_of_month="30", month_of_year="2")
    yield lambda: make_interval(name="Headers", headers="[1]")
    yield lambda: make_interval(name="No JSON", args="{")
    yield lambda: PeriodicTask.objects.create(
        name="Sunset",
        task="myproject.tasks.heartbeat",
        solar=SolarSchedule.objects.create(event="sunset", latitude=52, longitude=13),
    )


@pytest.mark.parametrize("make", list(bad_rows()))
def test_beat_leaves_out_what_it_cannot_read_and_runs_the_rest(
    make: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    make()
    make_interval()

    entries = Scheduler(app=app, lazy=True).all_as_schedule()

    assert "Often" in entries
    assert {name for name in entries if name not in ("Often", "No JSON")} == set()


def test_beat_writes_when_it_ran_and_keeps_an_edit_of_the_same_moment() -> None:
    entry = Scheduler(app=app, lazy=True).Entry(make_interval(), app=app)
    PeriodicTask.objects.update(queue="mail", expire_seconds=7)

    following = next(entry)
    following.save()

    row = PeriodicTask.objects.get()
    assert (row.queue, row.expire_seconds, row.total_run_count) == ("mail", 7, 1)
    assert row.last_run_at == following.last_run_at


# --- The admin ---


@pytest.fixture
def office(login: Callable[[User], Client], staff: User) -> Client:
    return login(staff)


def change(row: PeriodicTask) -> str:
    return reverse("admin:django_celery_beat_periodictask_change", args=[row.pk])


def form(row: PeriodicTask, **edit: str) -> dict[str, Any]:
    when = {"interval": row.interval_id or "", "crontab": row.crontab_id or ""}
    fixed = {"name": row.name, "task": row.task, "args": row.args, "kwargs": row.kwargs, "headers": "{}"}
    return fixed | when | {"enabled": "on"} | edit


def told(answer: Any) -> list[str]:
    return [str(message) for message in get_messages(answer.wsgi_request)]


def test_list_says_when_each_ran_last_and_runs_next_in_local_time(office: Client) -> None:
    row = make_crontab(hour="2", minute="30")
    with time_machine.travel(datetime(2026, 3, 28, 20, tzinfo=BERLIN), tick=False):
        PeriodicTask.objects.update(last_run_at=datetime(2026, 3, 28, 2, 30, tzinfo=BERLIN))
        listed = office.get(LIST).content.decode()
        page = office.get(change(row)).content.decode()

    assert ["Sat 28 Mar 2026, 02:30:00 CET" in listed, "Sun 29 Mar 2026, 03:30:00 CEST" in listed] == [True, True]
    assert "At 02:30" in listed
    for day in ("29 Mar 2026, 03:30", "30 Mar 2026, 02:30", "31 Mar 2026, 02:30", "01 Apr 2026, 02:30"):
        assert f"{day}:00 CEST" in page


def test_preview_says_the_schedule_s_own_time_too_where_it_is_another(office: Client) -> None:
    row = make_crontab(NEW_YORK, hour="2", minute="30")
    with time_machine.travel(datetime(2026, 3, 8, 3, tzinfo=UTC), tick=False):
        PeriodicTask.objects.update(last_run_at=datetime(2026, 3, 7, 2, 30, tzinfo=NEW_YORK))
        page = office.get(change(row)).content.decode()

    assert "Sun 08 Mar 2026, 08:30:00 CET (Sun 08 Mar 2026, 03:30:00 EDT)" in page


def test_list_says_so_when_beat_does_not_run(office: Client) -> None:
    row = make_interval()
    PeriodicTask.objects.filter(pk=row.pk).update(last_run_at=timezone.now() - timedelta(hours=1))

    assert "does beat run?" in office.get(LIST).content.decode()


def test_pages_open_although_a_schedule_cannot_be_read(office: Client) -> None:
    for make in bad_rows():
        make()

    assert "Cannot be read" in office.get(LIST).content.decode()
    for row in PeriodicTask.objects.all():
        assert office.get(change(row)).status_code == 200


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task", "myproject.tasks.hartbeat", "No worker knows a task myproject.tasks.hartbeat."),
        ("task", "", "Need name of task"),
        ("task", "x" * 300, "at most 200 characters"),
        ("queue", "ordres", "ordres is not one of the available choices"),
        ("args", "{", "This is not JSON"),
        ("args", "[" * 100_000, "This is not JSON"),
        ("args", '{"x": 1}', "This must be a list"),
        ("args", "[1, 2, 3]", "The task does not take these arguments"),
        ("kwargs", "[]", "This must be an object"),
        ("kwargs", "null", "This must be an object"),
        ("kwargs", '{"x": 1}', "The task does not take these arguments"),
        ("headers", "[1]", "This must be an object"),
        ("interval", "", "One of clocked, interval, crontab, or solar must be set."),
    ],
)
def test_form_refuses_what_beat_or_worker_could_not_use(field: str, value: str, message: str, office: Client) -> None:
    row = make_interval()
    before = PeriodicTask.objects.values().get()

    answer = office.post(change(row), form(row, **{field: value}))

    assert answer.status_code == 200
    assert message in json.dumps(answer.context["adminform"].form.errors)
    assert PeriodicTask.objects.values().get() == before


def test_form_refuses_a_day_that_never_comes(office: Client) -> None:
    row = make_crontab()
    never = CrontabSchedule.objects.create(day_of_month="30", month_of_year="2")

    answer = office.post(change(row), form(row, crontab=str(never.pk)))

    assert "Beat could not work with this schedule" in json.dumps(answer.context["adminform"].form.errors)


def test_form_takes_what_is_right(office: Client) -> None:
    row = make_interval()

    answer = office.post(change(row), form(row, task="myproject.tasks.add", args="[1, 2]", queue="mail", kwargs=""))

    row.refresh_from_db()
    assert (answer.status_code, row.task, row.queue, row.kwargs) == (302, "myproject.tasks.add", "mail", "{}")


def test_run_now_queues_once_and_leaves_the_schedule_alone(office: Client, broker: Broker) -> None:
    row = make_interval(queue="mail")
    before = PeriodicTask.objects.values().get()

    answer = office.post(LIST, {"action": "run_tasks", "_selected_action": [row.pk]})

    assert broker.messages() == [("mail", "myproject.tasks.heartbeat", {})]
    assert told(answer) == ["Often is queued; its schedule stays as it is."]
    assert PeriodicTask.objects.values().get() == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "gone.tasks.gone"}, "no worker knows a task gone.tasks.gone"),
        ({"queue": "ordres"}, "ordres"),
        ({"args": "{"}, "cannot be run"),
        ({"args": "[1]"}, "cannot be run"),
    ],
)
def test_run_now_says_what_is_wrong(fields: dict[str, str], message: str, office: Client, broker: Broker) -> None:
    row = make_interval()
    PeriodicTask.objects.update(**fields)

    answer = office.post(LIST, {"action": "run_tasks", "_selected_action": [row.pk]})

    assert answer.status_code == 302
    assert message in told(answer)[0]
    assert sum(broker.lengths().values()) == 0


def test_run_now_says_so_when_the_broker_is_away(office: Client, broker: Broker) -> None:
    broker.use(NOWHERE)
    rows = [make_interval(name) for name in ("A", "B")]

    answer = office.post(LIST, {"action": "run_tasks", "_selected_action": [row.pk for row in rows]})

    assert answer.status_code == 302
    assert [message.startswith("The broker does not answer, A") for message in told(answer)] == [True]


def test_dashboard_of_staff_leads_to_the_schedules(office: Client) -> None:
    assert LIST in office.get("/dashboard/").content.decode()
