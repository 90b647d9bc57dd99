"""What became of tasks, by their ids, wherever CELERY_RESULT_BACKEND keeps it."""

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery import current_app, states
from celery.backends.redis import RedisBackend as CelerysRedisBackend
from django.conf import settings
from django.core.cache import caches
from django_celery_results.models import TaskResult
from redis.exceptions import RedisError

log = logging.getLogger(__name__)


class RedisBackend(CelerysRedisBackend):
    """Celery's own, but a Redis that is away costs the result, and neither the message nor the task."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do not subscribe to the result of each task that is queued: `get()` does, and only that waits."""

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().store_result(task_id, result, state, *args, **kwargs)
        except (RedisError, OSError) as error:
            log.warning("That task %s is %s was not kept: %s", task_id, state, error)
            return result


@dataclass(frozen=True)
class Result:
    """What is known of one task; times only where the database keeps the results."""

    status: str
    outcome: str
    worker: str
    retries: int
    date_created: datetime | None = None
    date_started: datetime | None = None
    date_done: datetime | None = None


def find(ids: Collection[str]) -> dict[str, Result]:
    """Return those that there are; makes one query. None while a Redis of results is away."""
    if not ids:
        return {}
    if settings.RESULTS_IN_DATABASE:
        return {row.task_id: of_row(row) for row in TaskResult.objects.filter(task_id__in=ids)}
    keys = {current_app.backend.get_key_for_task(task_id): task_id for task_id in ids}
    return {keys[key]: of_meta(meta) for key, meta in stored(list(keys)).items()}


def stored(keys: list[Any]) -> Mapping[Any, dict[str, Any]]:
    """Return what the backend has for its keys."""
    if settings.CELERY_RESULT_BACKEND == "django-cache":
        names = {key.decode(): key for key in keys}
        found = caches[settings.CELERY_CACHE_BACKEND].get_many(names)
        return {names[name]: meta for name, meta in found.items()}
    try:
        values = current_app.backend.mget(keys)
    except (RedisError, OSError) as error:
        log.warning("The results cannot be read: %s", error)
        return {}
    return {key: current_app.backend.decode(value) for key, value in zip(keys, values, strict=True) if value}


def of_row(row: TaskResult) -> Result:
    retries = json.loads(row.meta or "{}").get("retries", 0)
    outcome = described(row.status, json.loads(row.result or "null"))
    return Result(row.status, outcome, row.worker or "", retries, row.date_created, row.date_started, row.date_done)


def of_meta(meta: dict[str, Any]) -> Result:
    """Read what Celery's own backends store."""
    outcome = described(meta["status"], meta["result"])
    return Result(meta["status"], outcome, meta.get("worker") or "", meta.get("retries") or 0)


def described(status: str, result: Any) -> str:
    """Return what the task returned, or its error, in words."""
    if status == states.STARTED:
        return ""
    if isinstance(result, dict) and result.keys() == {"done", "of"}:
        return f"{result['done']} of {result['of']}"
    if isinstance(result, BaseException):
        return f"{type(result).__name__}: {result}"
    if isinstance(result, dict) and "exc_type" in result:
        return f"{result['exc_type']}: {' '.join(map(str, result['exc_message']))}"
    return str(result)
