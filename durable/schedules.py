"""Schedules: each app declares its own in `schedules.py`, and `sync_schedules` writes them to the database.

Frequent tasks are intervals, which ignore daylight saving; a crontab would skip an hour. Tasks that run at a time of
day are crontabs in the project's time zone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import Any

from celery.schedules import crontab
from django.apps import apps
from django.utils.module_loading import module_has_submodule


def expires_before_next(every: timedelta) -> int:
    """Return the seconds after which a run, and what it queues, expires: shortly before the next run."""
    return int(every.total_seconds() * 5 / 6)


@dataclass(frozen=True)
class Schedule:
    """One periodic task.

    A run expires `expires` seconds after it was queued, so that a worker does not catch up on every run that it
    missed; by default shortly before the next run, and never for a crontab. If `queue` is None, the task's routes
    decide.
    """

    task: str
    when: crontab | timedelta
    expires: int | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None

    def __post_init__(self) -> None:
        if self.expires is None and isinstance(self.when, timedelta):
            object.__setattr__(self, "expires", expires_before_next(self.when))


def declared() -> dict[str, Schedule]:
    """Return the `SCHEDULES` of all installed apps by name."""
    modules = [
        import_module(f"{config.name}.schedules")
        for config in apps.get_app_configs()
        if module_has_submodule(config.module, "schedules")
    ]
    return {name: schedule for module in modules for name, schedule in getattr(module, "SCHEDULES", {}).items()}
