"""Schedules as the tutorials declare them."""

from typing import Any
from zoneinfo import ZoneInfo

from django_celery_beat.tzcrontab import TzAwareCrontab


def each_quarter() -> TzAwareCrontab:
    """Return crontab(minute="*/15"), as beat makes it of a row, in the time of TIME_ZONE."""
    return TzAwareCrontab(minute="*/15", tz=ZoneInfo("Europe/Berlin"))


def schedule() -> dict[str, Any]:
    """Return what the settings say."""
    return {"check-pending-orders": {"task": "lab.naive.orders.process_order", "schedule": 60.0}}


CELERY_BEAT_SCHEDULE = schedule()
