"""What runs when: each app declares it in its own `schedules.py`, and `sync_schedules` writes it to the database.

What runs often, day and night, is an interval: it takes no notice of daylight saving, which would skip an hour of a
crontab. What goes by the clock on the wall is a crontab in the project's own time.
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
    """Return after how many seconds a run, or what it queues, expires: shortly before the next one."""
    return int(every.total_seconds() * 5 / 6)


@dataclass(frozen=True)
class Schedule:
    """One periodic task.

    `expires` seconds after it was queued a run is dropped, so that a worker which was away does not catch up on
    every run it missed; by default shortly before the next one, and never for a crontab. `queue` None is the one of
    the task's routes.
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
    """Return by name what the `SCHEDULES` of all installed apps say."""
    modules = [
        import_module(f"{config.name}.schedules")
        for config in apps.get_app_configs()
        if module_has_submodule(config.module, "schedules")
    ]
    return {name: schedule for module in modules for name, schedule in getattr(module, "SCHEDULES", {}).items()}
