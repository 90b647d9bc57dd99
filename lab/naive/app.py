"""Celery as the tutorials set it up: a broker, the results in the Django database, JSON, and nothing else."""

import json
import os
from typing import Any

from celery import Celery
from django.conf import settings

# The variable in which an experiment hands over settings.
CONF = "LAB_CONF"
# The database of the same Redis, so that workers of the two sides do not hear each other.
DATABASE = 1
BROKER = f"{settings.CELERY_BROKER_URL}?virtual_host={DATABASE}"


class Tutorial(Celery):
    """Keeps its tasks to itself: those of one app are else tasks of every other, too."""

    def task(self, *args: Any, **options: Any) -> Any:
        return super().task(*args, **{**options, "shared": False})


app = Tutorial("naive", set_as_current=False)
app.conf.update(
    # Both: of the address alone, a variable of the environment is preferred.
    broker_read_url=BROKER,
    broker_write_url=BROKER,
    result_backend="django-db",
    accept_content=["json"],
    task_serializer="json",
    timezone=settings.TIME_ZONE,
    broker_connection_retry_on_startup=True,
    task_track_started=True,
    result_extended=True,
    # What an experiment sets besides.
    **json.loads(os.environ.get(CONF, "{}")),
)
