"""The main promise, with real processes: a worker that is killed in the middle costs time, and the row ends once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from celery import states
from django.db import connection
from django_celery_results.models import TaskResult

from durable.tests.jobs.models import Job
from durable.tests.jobs.tasks import check_jobs, finish_job
from durable.tests.settings import HOME
from durable.tests.test_leases import job

pytestmark = pytest.mark.django_db(transaction=True)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.1)


@contextmanager
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker, in a process group of its own, on the database of the tests."""
    environment = os.environ | {"DURABLE_TESTS_DATABASE": connection.settings_dict["NAME"]}
    command = [sys.executable, "-m", "celery", "-A", "durable.tests.celery", "worker", "--concurrency=1"]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_row_ends_once_although_its_worker_is_killed_in_the_middle() -> None:
    row = job()
    slow, claimed = HOME / "slow", HOME / "claimed"
    slow.touch()
    finish_job.delay(job_id=row.pk)
    with worker() as first:
        wait_for(claimed.exists)
        kill(first)
    slow.unlink()
    assert not Job.objects.get().is_done

    # The message is gone with the worker, for this broker keeps none; the sweep finds the row.
    wait_for(lambda: Job.objects.due().exists())
    check_jobs()
    with worker():
        wait_for(lambda: Job.objects.get().is_done)

    assert Job.objects.values_list("effects", "attempts").get() == (1, 2)


def expire() -> None:
    """Send a message that a worker holds until it has expired, and wait until the worker has stored its end."""
    sent = finish_job.apply_async(kwargs={"job_id": 0}, countdown=1, expires=0.5)
    wait_for(lambda: TaskResult.objects.filter(task_id=sent.id, status=states.REVOKED).exists())


def test_expired_messages_keep_no_place_of_a_worker_whose_database_has_ended_its_connection() -> None:
    row = job()
    with worker():
        expire()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

        expire()
        finish_job.delay(job_id=row.pk)

        wait_for(lambda: Job.objects.get().is_done)
