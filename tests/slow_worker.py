"""The shop's Celery app with tasks that take their time in the database: `celery -A tests.slow_worker worker`."""

from contextlib import suppress

import django
from celery.exceptions import SoftTimeLimitExceeded

from myproject.celery import app as app

django.setup()

from django.db import connection  # noqa: E402


@app.task
def query(*, seconds: float) -> None:
    """Ask PostgreSQL for something that takes so long. Safe to repeat: it changes nothing."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])


@app.task(soft_time_limit=1, time_limit=2)
def exceed_hard_limit(*, seconds: float) -> None:
    """The same, deaf to the soft limit, until the hard one kills the process. Safe to repeat: it changes nothing."""
    with suppress(SoftTimeLimitExceeded):
        query(seconds=seconds)
    connection.close()
    query(seconds=seconds)
