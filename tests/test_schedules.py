"""`sync_schedules`: what is declared in code, and what people edit in the admin."""

import json
from datetime import timedelta

import pytest
from celery.schedules import crontab
from django.conf import settings
from django.core.management import CommandError, call_command
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from durable.schedules import Schedule, declared
from myproject.celery import app
from myproject.monitoring.beat import in_words
from orders.schedules import SCHEDULES

pytestmark = pytest.mark.django_db

NAME = "Check pending orders"


def sync(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run the command; return the lines it printed."""
    capsys.readouterr()
    call_command("sync_schedules")
    return capsys.readouterr().out.splitlines()


def row(name: str = NAME) -> PeriodicTask:
    return PeriodicTask.objects.get(name=name)


def rows() -> list[tuple[object, ...]]:
    return list(PeriodicTask.objects.order_by("name").values_list())


def declare(monkeypatch: pytest.MonkeyPatch, name: str, schedule: Schedule) -> None:
    monkeypatch.setitem(SCHEDULES, name, schedule)


def test_sync_creates_each_declared_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    printed = sync(capsys)

    assert printed == [f"create {name}" for name in declared()]
    assert {(task.name, task.task, task.expire_seconds, task.enabled) for task in PeriodicTask.objects.all()} == {
        (name, schedule.task, schedule.expires, True) for name, schedule in declared().items()
    }


def test_sync_writes_intervals_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    sync(capsys)

    assert (row().interval.every, row().interval.period, row().crontab) == (30, "seconds", None)


def test_sync_takes_one_of_times_that_somebody_has_added_twice(capsys: pytest.CaptureFixture[str]) -> None:
    sync(capsys)
    for times in (row().interval, row("Clear sessions").crontab):
        times.pk = None
        times.save()
    PeriodicTask.objects.all().delete()

    assert len(sync(capsys)) == len(declared())


def test_sync_writes_crontabs_in_the_shop_s_time_zone(capsys: pytest.CaptureFixture[str]) -> None:
    sync(capsys)

    daily = row("Clear sessions").crontab
    assert (daily.hour, daily.minute, str(daily.timezone)) == ("3", "20", settings.TIME_ZONE)


def test_sync_twice_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    sync(capsys)
    before = rows()

    printed = sync(capsys)

    assert (printed, rows()) == ([], before)


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule("orders.tasks.check_pending_orders", timedelta(seconds=10), 25),
        Schedule("orders.tasks.check_pending_orders", timedelta(seconds=30), 5),
        Schedule("orders.tasks.check_pending_orders", crontab(minute="5"), 25),
        Schedule("myproject.tasks.heartbeat", timedelta(seconds=30), 25),
        Schedule("orders.tasks.check_pending_orders", timedelta(seconds=30), 25, {"limit": 5}),
        Schedule("orders.tasks.check_pending_orders", timedelta(seconds=30), 25, {}, "mail"),
    ],
)
def test_sync_updates_unedited_rows(
    schedule: Schedule, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(capsys)
    declare(monkeypatch, NAME, schedule)

    first, second = sync(capsys), sync(capsys)

    assert (first, second) == ([f"update {NAME}"], [])
    assert (row().task, row().expire_seconds) == (schedule.task, schedule.expires)
    assert json.loads(row().kwargs) == schedule.kwargs
    assert row().queue == schedule.queue
    assert (row().interval is None) == isinstance(schedule.when, crontab)


@pytest.mark.parametrize(
    "edit", [{"enabled": False}, {"expire_seconds": 7}, {"queue": "mail"}, {"kwargs": '{"x": 1}'}, {"one_off": True}]
)
def test_sync_keeps_an_edit_when_the_code_changes(
    edit: dict[str, object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(capsys)
    PeriodicTask.objects.filter(name=NAME).update(**edit)
    before = rows()
    declare(monkeypatch, NAME, Schedule("myproject.tasks.heartbeat", timedelta(seconds=10), 5))

    printed = sync(capsys)

    assert (printed, rows()) == ([], before)


def test_sync_keeps_another_interval_that_was_chosen_in_the_admin(capsys: pytest.CaptureFixture[str]) -> None:
    sync(capsys)
    chosen = IntervalSchedule.objects.create(every=5, period=IntervalSchedule.MINUTES)
    PeriodicTask.objects.filter(name=NAME).update(interval=chosen)

    printed = sync(capsys)

    assert (printed, row().interval) == ([], chosen)


def test_sync_keeps_a_schedule_that_somebody_added(capsys: pytest.CaptureFixture[str]) -> None:
    sync(capsys)
    own = PeriodicTask.objects.create(name="Mine", task="myproject.tasks.heartbeat", interval=row().interval)
    before = rows()

    printed = sync(capsys)

    assert (printed, rows(), own.enabled) == ([], before, True)


def test_sync_disables_what_was_removed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sync(capsys)
    monkeypatch.delitem(SCHEDULES, NAME)

    first, second = sync(capsys), sync(capsys)

    assert (first, second) == ([f"disable {NAME}"], [])
    assert row().enabled is False


def test_sync_enables_what_was_declared_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(capsys)
    with monkeypatch.context() as removed:
        removed.delitem(SCHEDULES, NAME)
        sync(capsys)

    printed = sync(capsys)

    assert (printed, row().enabled) == ([f"update {NAME}"], True)


def test_sync_check_fails_and_changes_nothing_when_something_would_change() -> None:
    with pytest.raises(CommandError, match=f"it would: create {next(iter(declared()))}; "):
        call_command("sync_schedules", check=True)

    assert rows() == []


def test_sync_check_is_content_when_all_is_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    sync(capsys)
    before = rows()

    call_command("sync_schedules", check=True)

    assert rows() == before


def test_beat_reads_what_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    sync(capsys)

    entries = DatabaseScheduler(app=app, lazy=True).all_as_schedule()

    assert entries[NAME].task == "orders.tasks.check_pending_orders"
    assert entries[NAME].schedule.run_every == timedelta(seconds=30)
    assert entries[NAME].options["expires"] == 25


FORMER = "Declared in myproject/celery.py. Edits made here are kept. "


def age(name: str, **edit: object) -> None:
    """Have the row look as the release before wrote it, and as it was edited since."""
    description = FORMER + row(name).description.split()[-1]
    PeriodicTask.objects.filter(name=name).update(description=description, **edit)


def test_sync_knows_what_the_release_before_has_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(capsys)
    for name in declared():
        age(name)
    assert sync(capsys) == []
    assert not PeriodicTask.objects.filter(description__startswith=FORMER).exists()

    age(NAME)
    age("Clear sessions", enabled=False)
    age("Sync inventory")
    declare(monkeypatch, NAME, Schedule("orders.tasks.check_pending_orders", timedelta(seconds=10)))
    monkeypatch.delitem(SCHEDULES, "Sync inventory")

    assert sync(capsys) == [f"update {NAME}", "disable Sync inventory"]
    assert row("Clear sessions").description.startswith(FORMER)


@pytest.mark.parametrize(
    ("hour", "words"),
    [("0", "At 00:05"), ("8", "At 08:05"), ("12", "At 12:05"), ("21", "At 21:05"), ("*", "At 5 minutes")],
)
def test_times_of_a_schedule_are_said_with_24_hours(hour: str, words: str) -> None:
    assert in_words(CrontabSchedule(minute="5", hour=hour)).startswith(words)
