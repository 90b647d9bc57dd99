"""What is due is queued again with an expiry, what is exhausted is given up, and a broker that is away costs time."""

from datetime import UTC, datetime, timedelta

import pytest

from durable.task import breaker
from durable.tests.conftest import end_lease, messages
from durable.tests.jobs.models import Job
from durable.tests.jobs.tasks import check_broken_jobs_first, check_jobs, finish_job
from durable.tests.settings import HOME
from durable.tests.test_leases import job

pytestmark = pytest.mark.django_db


def test_sweep_queues_what_is_due_up_to_its_limit() -> None:
    due = [job() for _ in range(3)]
    job()
    end_lease(*due)

    check_jobs()

    assert [message.payload[1] for message in messages()] == [{"job_id": row.pk} for row in due[:2]]


def test_messages_of_a_sweep_expire_before_the_next_one() -> None:
    end_lease(job())

    check_jobs()

    [message] = messages()
    expires = datetime.fromisoformat(message.headers["expires"])
    assert timedelta(0) < expires - datetime.now(UTC) < timedelta(seconds=60)


def test_sweep_gives_up_what_is_exhausted() -> None:
    tired = job(attempts=3)
    end_lease(tired)

    check_jobs()

    tired.refresh_from_db()
    assert (tired.has_failed, tired.due_at, messages()) == (True, None, [])


def test_sweep_that_fails_keeps_no_other_from_running() -> None:
    end_lease(row := job())

    with pytest.raises(ZeroDivisionError):
        check_broken_jobs_first()

    assert [message.payload[1] for message in messages()] == [{"job_id": row.pk}]


def test_broker_that_is_away_costs_time_and_no_error() -> None:
    end_lease(row := job())
    queue, away = HOME / "queue", HOME / "away"
    queue.rename(away)
    check_jobs()
    away.rename(queue)

    check_jobs()

    assert [message.payload[1] for message in messages()] == [{"job_id": row.pk}]


@pytest.mark.django_db(transaction=True)
def test_after_a_failure_a_request_waits_for_no_further_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "SECONDS", 60.0)
    queue, away = HOME / "queue", HOME / "away"
    queue.rename(away)
    finish_job.delay_on_commit(job_id=1)
    away.rename(queue)

    finish_job.delay_on_commit(job_id=2)
    monkeypatch.setattr(breaker, "SECONDS", 0.0)
    finish_job.delay_on_commit(job_id=3)
    monkeypatch.setattr(breaker, "SECONDS", 60.0)
    finish_job.delay_on_commit(job_id=4)

    # The third found the broker back, so the fourth was free to go.
    assert [message.payload[1] for message in messages()] == [{"job_id": 3}, {"job_id": 4}]


def test_task_twice_is_once() -> None:
    row = job()

    for _ in range(2):
        finish_job.apply(kwargs={"job_id": row.pk}).get()

    assert Job.objects.values_list("is_done", "effects").get() == (True, 1)
