"""The README's tables are compared with the code, so that they stay true."""

import re
from datetime import timedelta

import pytest
from celery.schedules import crontab
from django.conf import settings

from myproject.celery import SCHEDULES, Schedule, app

# Now, since tests of `sync_schedules` take one out and put it back at the end.
DECLARED = list(dict.fromkeys(schedule.task for schedule in SCHEDULES.values()))
README = (settings.BASE_DIR / "README.md").read_text()


def rows_of_tasks() -> dict[str, tuple[str, str]]:
    found = re.findall(r"^\| `([\w.]+)` \| (\w+) \| [^|]+ \| ([^|]+) \|$", README, re.MULTILINE)
    return {name: (queue, purpose.strip()) for name, queue, purpose in found}


def test_readme_lists_each_task_with_its_queue_and_purpose() -> None:
    app.loader.import_default_modules()

    ours = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}

    assert rows_of_tasks() == {
        name: (
            app.amqp.router.route({}, name)["queue"].name,
            (task.__doc__ or "").split(" Safe to repeat:")[0].strip(),
        )
        for name, task in ours.items()
    }


def words(when: crontab | timedelta) -> str:
    """Say when a schedule runs, as the table does."""
    if isinstance(when, timedelta):
        seconds = round(when.total_seconds())
        return f"every {seconds} s" if seconds < 120 else f"every {seconds // 60} min"
    if "-" in when._orig_hour:
        return f"hourly {when._orig_hour.replace('-', '–')}, Monday to Friday"
    day = {"*": "daily", "mon": "Monday"}[when._orig_day_of_week]
    return f"{day} {int(when._orig_hour):02}:{int(when._orig_minute):02}"


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=lambda schedule: schedule.task)
def test_readme_says_when_each_schedule_runs(schedule: Schedule) -> None:
    runs = re.findall(rf"^\| `{re.escape(schedule.task)}` \| \w+ \| ([^|]+) \|", README, re.MULTILINE)

    assert [re.split(", (?:and|in)", text)[0] for text in runs] == [words(schedule.when)]


def test_readme_and_schedules_go_by_app_in_one_order() -> None:
    listed = [name for name in rows_of_tasks() if name in DECLARED]

    assert listed == DECLARED
    assert list(dict.fromkeys(name.split(".")[0] for name in listed)) == ["orders", "accounts", "reports", "myproject"]


def test_tasks_say_why_they_are_safe_to_repeat() -> None:
    app.loader.import_default_modules()

    silent = [
        name
        for name, task in app.tasks.items()
        if not name.startswith("celery.") and "Safe to repeat:" not in (task.__doc__ or "")
    ]

    assert silent == []


def test_readme_names_only_files_and_functions_that_exist() -> None:
    walk = re.findall(r"^\| \d \| `([\w/.]+)` · `(\w+)`", README, re.MULTILINE)

    missing = [(path, name) for path, name in walk if f"def {name}(" not in (settings.BASE_DIR / path).read_text()]

    assert len(walk) == 4
    assert missing == []
