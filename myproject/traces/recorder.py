"""Records each run of a task that claimed a row, failed, or belongs to a schedule.

The time of the click travels in the message, so that the web writes nothing for it; a worker adds one row at the end of
the task. Runs that found nothing to do, as most do in a backlog, are left out.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from celery import signals
from django.db import Error
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from durable import trace
from durable.errors import PermanentError, TemporaryError, readable

from .models import Run

log = logging.getLogger(__name__)

# In a message, which is untrusted: when the web was asked for what.
CLICK = "clicked"
_CLICK: ContextVar[tuple[float, HttpRequest] | None] = ContextVar("click", default=None)
# As `log_context.HEADER` carries it.
IDS = "__django_structlog__"
PATH = re.compile(r"[A-Z]{3,7} /[^\s]{0,110}")
# Returns the id of OpenTelemetry's current trace, which is empty unless `otel.py` has put its own here.
trace_id: Callable[[], str] = str


def note_clicks(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: remember when this request came, for the messages that it sends."""

    def noted(request: HttpRequest) -> HttpResponseBase:
        token = _CLICK.set((time.time(), request))
        try:
            return get_response(request)
        finally:
            _CLICK.reset(token)

    return noted


@signals.before_task_publish.connect
def carry_click(headers: dict[str, Any], **kwargs: Any) -> None:
    if click := _CLICK.get():
        at, request = click
        # The pattern: an address may hold a signature.
        route = f"/{request.resolver_match.route}" if request.resolver_match else "/"
        headers[CLICK] = [at, f"{request.method} {route}"[:118]]


@signals.task_prerun.connect
def begin(task: Any, **kwargs: Any) -> None:
    # A task that is applied in place is part of its caller.
    if not task.request.is_eager:
        trace.begin()


@signals.task_retry.connect
def note_retry(reason: Any = None, **kwargs: Any) -> None:
    note_why(getattr(reason, "exc", reason))


@signals.task_failure.connect
def note_failure(exception: Any = None, **kwargs: Any) -> None:
    note_why(exception)


def note_why(error: object) -> None:
    if found := trace.current():
        # The text of any other error may hold what a person wrote.
        is_ours = isinstance(error, (TemporaryError, PermanentError))
        found.why = readable(str(error) if is_ours else type(error).__name__)[:300]


@signals.task_postrun.connect
def record(task: Any, task_id: str, state: str | None = None, **kwargs: Any) -> None:
    found = None if task.request.is_eager else trace.end()
    if found is None:
        return
    is_periodic = bool(getattr(task.request, "periodic_task_name", None))
    if not (found.rows or is_periodic or state in ("FAILURE", "RETRY")):
        return
    try:
        Run.objects.record(
            **fields_of(task, task_id, found), is_periodic=is_periodic, **about(found), state=state or ""
        )
    except Error as error:
        # The task has ended well; what is missing is its picture.
        log.warning("The run of %s was not recorded, the database failed: %s", task.name, type(error).__name__)


def fields_of(task: Any, task_id: str, found: trace.Trace) -> dict[str, Any]:
    request, began = task.request, found.began_at
    sent = max(seconds(getattr(request, "sent_at", None), began), due(request.eta))
    clicked_at, path = click_of(request)
    ids = getattr(request, IDS, None)
    request_id = ids.get("request_id") if isinstance(ids, dict) else ""
    return {
        "task_id": task_id[:64],
        "task": task.name[:120],
        "attempt": (request.retries or 0) + 1,
        "why": found.why,
        "trace_id": trace_id(),
        "request_id": request_id if isinstance(request_id, str) and len(request_id) <= 64 else "",
        "path": path,
        "clicked_at": clicked_at,
        "queue": str((request.delivery_info or {}).get("routing_key") or "")[:50],
        "worker": (request.hostname or "")[:120],
        "pid": os.getpid(),
        "sent_at": moment(min(sent, began)),
        "started_at": moment(began),
        "ended_at": moment(max(time.time(), began)),
    }


def about(found: trace.Trace) -> dict[str, Any]:
    calls = [[each.what, each.about, each.began_at, round(each.seconds * 1000, 1), each.failed] for each in found.calls]
    return {"about": list(dict.fromkeys(found.rows)), "calls": json.dumps(calls)}


def click_of(request: Any) -> tuple[datetime | None, str]:
    told = getattr(request, CLICK, None)
    if not (isinstance(told, (list, tuple)) and len(told) == 2):
        return None, ""
    at, path = seconds(told[0], 0), told[1]
    if not at or not isinstance(path, str) or not PATH.fullmatch(path):
        return None, ""
    return moment(at), path


def seconds(told: object, otherwise: float) -> float:
    """Return a time in a message, if it is one of the last week."""
    now = time.time()
    is_time = isinstance(told, (int, float)) and now - 7 * 86400 < told < now + 60
    return float(told) if is_time else otherwise  # type: ignore[arg-type]


def due(eta: object) -> float:
    try:
        return datetime.fromisoformat(eta).timestamp() if isinstance(eta, str) else 0
    except ValueError:
        return 0


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
