"""Queues and how long their tasks may take, as the code says: what compose, systemd and Kubernetes must agree with."""

import re
from functools import cache

from django.conf import settings

from myproject.celery import app


def seconds(duration: str) -> int:
    """Read a duration of Compose or systemd, such as 90s, 6m or 6min."""
    found = re.fullmatch(r"(\d+)(s|m|min)", duration)
    assert found is not None, duration
    return int(found[1]) * (1 if found[2] == "s" else 60)


@cache
def longest_limits() -> tuple[dict[str, float], list[str]]:
    """Return the longest hard limit that a task of each queue sets in production, and the tasks that set none."""
    app.loader.import_default_modules()
    limits: dict[str, float] = {queue.name: 0 for queue in settings.CELERY_TASK_QUEUES}
    without = []
    for name, task in app.tasks.items():
        if name.startswith("celery."):
            continue
        if task.time_limit == app.conf.task_time_limit:
            without.append(name)
            continue
        queue = app.amqp.router.route({}, name)["queue"].name
        limits[queue] = max(limits[queue], task.time_limit)
    return limits, without
