"""The tasks that belong to no app."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from django_celery_results.models import TaskResult

from myproject import tasks
from myproject.storage import clean_ups

pytestmark = pytest.mark.django_db


def finish(age: timedelta, number: int = 0) -> TaskResult:
    result = TaskResult.objects.create(task_id=f"{age}-{number}", status="SUCCESS")
    TaskResult.objects.filter(pk=result.pk).update(date_done=timezone.now() - age)
    return result


@pytest.mark.proves("myproject.tasks.clear_task_results", "twice")
def test_clear_task_results_keeps_a_week() -> None:
    kept = finish(timedelta(days=6, hours=23))
    finish(timedelta(days=7, minutes=1))

    for _ in range(2):
        tasks.clear_task_results()

    assert list(TaskResult.objects.all()) == [kept]


@pytest.mark.proves("myproject.tasks.clear_sessions", "twice")
def test_clear_sessions_keeps_what_has_not_expired() -> None:
    now = timezone.now()
    for key, expires in [("old", now - timedelta(minutes=1)), ("new", now + timedelta(minutes=1))]:
        Session.objects.create(session_key=key, session_data="", expire_date=expires)

    for _ in range(2):
        tasks.clear_sessions()

    assert list(Session.objects.values_list("session_key", flat=True)) == ["new"]


def test_delete_in_chunks_deletes_all_and_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_ups, "CHUNK", 2)
    for number in range(5):
        finish(timedelta(days=8), number)

    deleted = clean_ups.delete_in_chunks(TaskResult.objects.all())

    assert (deleted, TaskResult.objects.count()) == (5, 0)


def test_heartbeat_tells_the_time() -> None:
    start = timezone.now().replace(microsecond=0)

    told: Any = tasks.heartbeat()

    assert start <= datetime.fromisoformat(told) <= timezone.now()
