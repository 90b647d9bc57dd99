"""The shop's own worker, with two tasks of the lab: `celery -A lab.ours worker`."""

import os
import signal
import time

import django

from myproject.celery import app as app

django.setup()

from django.db import connection  # noqa: E402

from lab import marks  # noqa: E402


@app.task(max_retries=2, default_retry_delay=1, ignore_result=True)
def take_all_memory() -> None:
    """Die as by the kernel's hand. Safe to repeat: it changes nothing."""
    marks.leave("runs")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(ignore_result=True)
def take(*, name: str, seconds: float) -> None:
    """Take a while, and leave a mark. Safe to repeat: it changes nothing."""
    time.sleep(seconds)
    marks.leave("taken", name)


@app.task(ignore_result=True)
def ask_database(*, name: str) -> None:
    """Make one query, and leave a mark. Safe to repeat: it changes nothing."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    marks.leave("taken", name)
