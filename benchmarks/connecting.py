"""A worker that keeps its database connection in the way that WAY names: `celery -A benchmarks.connecting worker`."""

import os

import django
from celery import signals
from django.conf import settings
from django.db import Error, connection

from myproject.celery import app, drop_dead_connections

FAILED = "failed"
WAY = os.environ.get("WAY", "ours")
if WAY != "ours":
    # What Celery and Django do by themselves.
    settings.DATABASES["default"] |= {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False}
    signals.task_prerun.disconnect(drop_dead_connections)
if WAY in ("none", "pool"):
    settings.CELERY_DB_REUSE_MAX = None
# Our start-up checks would rightly stop such a worker.
settings.SILENCED_SYSTEM_CHECKS = ["celery.E012", "celery.W003"]
django.setup()

from .shop import note  # noqa: E402


@app.task(ignore_result=True)
def query() -> None:
    """Make one query, and count whether it could be made. Safe to repeat: it changes nothing."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        note(FAILED)
