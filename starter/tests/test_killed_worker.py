"""A worker is killed in the middle, and the row ends once: with real processes, on the servers of the tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from inquiries.models import Inquiry, Status
from inquiries.tasks import answer_inquiry, check_inquiries
from myproject import embedded

pytestmark = pytest.mark.django_db(transaction=True)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.1)


@contextmanager
def worker(seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker, in a process group of its own, whose work takes that long."""
    database = embedded.database_url(settings.VAR_DIR, connection.settings_dict["NAME"])
    environment = os.environ | {"DATABASE_URL": database, "INQUIRY_SECONDS": str(seconds)}
    environment |= {"EMAIL_URL": "dummymail://", "DJANGO_ALLOW_ASYNC_UNSAFE": ""}
    command = [sys.executable, "-m", "celery", "-A", "myproject", "--quiet", "worker", "--concurrency", "1"]
    process = subprocess.Popen(command, cwd=settings.BASE_DIR, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def status() -> str:
    found: str = Inquiry.objects.values_list("status", flat=True).get()
    return found


def test_inquiry_ends_once_although_its_worker_is_killed_in_the_middle(person: Any) -> None:
    row = Inquiry.objects.create(person=person, text="Who is there?", **Inquiry.lease.fresh())
    answer_inquiry.delay(inquiry_id=row.pk)
    with worker(seconds=60) as first:
        wait_for(lambda: Inquiry.objects.exclude(claimed_by="").exists())
        kill(first)
    assert status() == Status.PENDING

    wait_for(lambda: Inquiry.objects.due().exists())
    check_inquiries()
    with worker(seconds=0):
        wait_for(lambda: Inquiry.objects.filter(mail_sent_at__isnull=False).exists())

    assert status() == Status.ANSWERED
    assert Inquiry.objects.get().attempts == 2
