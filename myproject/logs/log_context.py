"""The ids that each line of the log carries: of the request, of the task, and of the task that queued it.

They live in context variables, which structlog adds to every line of the thread, and travel in the headers of
messages. Headers are validated: others who can write to the broker must not be able to write to our log.
"""

import re
import time
import uuid
from contextlib import AbstractContextManager
from typing import Any

import structlog
from celery import signals
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django_structlog.celery.receivers import CeleryReceiver
from django_structlog.middlewares.request import RequestMiddleware
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, get_contextvars

from durable.task import is_second_report

logger = structlog.get_logger(__name__)

HEADER = "__django_structlog__"
CARRIED = ("request_id", "parent_task_id", "order")
# In a request's META, as the server's own things are.
STARTED, IDS = "shop.started", "shop.ids"
# Short, and nothing that could be a name, an address or a second line.
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{7,63}")
REFERENCE = re.compile(r"[0-9A-Z]{4}-[0-9A-Z]{4}")


def path_of(request: HttpRequest) -> str:
    """Return the URL pattern, which contains no names or signatures; the path if no pattern matches."""
    return f"/{request.resolver_match.route}" if request.resolver_match else request.path


class Requests(RequestMiddleware):
    """Middleware: logs one line per request, and adds its id to all related lines and to the response."""

    def prepare(self, request: HttpRequest) -> None:
        clear_contextvars()
        told = request.META.get("HTTP_X_REQUEST_ID", "")
        request.META["HTTP_X_REQUEST_ID"] = told if ID.fullmatch(told) else str(uuid.uuid4())
        super().prepare(request)
        request.META[STARTED] = time.perf_counter()

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if REFERENCE.fullmatch(str(kwargs.get("reference", ""))):
            bind_contextvars(order=kwargs["reference"])

    def handle_response(self, request: HttpRequest, response: HttpResponseBase) -> None:
        response["X-Request-ID"] = request.META["HTTP_X_REQUEST_ID"]
        request.META[IDS] = get_contextvars()
        bind_contextvars(duration_ms=round((time.perf_counter() - request.META[STARTED]) * 1000))
        super().handle_response(request, response)  # type: ignore[arg-type]

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        return f"{request.method} {path_of(request)}"

    def _process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Log no traceback: Django's own line has it."""


class Receiver(CeleryReceiver):
    """Logs each task's outcome with its ids, and passes the publisher's ids along in the message."""

    def receiver_before_task_publish(self, sender: Any = None, headers: Any = None, *args: Any, **kwargs: Any) -> None:
        # A retry keeps its ids, if they are well-formed.
        is_given = HEADER in headers or headers.get("retries")
        headers[HEADER] = well_formed(headers.get(HEADER)) if is_given else to_carry()

    def receiver_task_prerun(self, task_id: str, task: Any, *args: Any, **kwargs: Any) -> None:
        # A task that is applied in place belongs to its caller's request.
        if task.request.is_eager:
            return
        task.request._django_structlog_started_at = time.monotonic_ns()
        clear_contextvars()
        # Bind the order to this line only: the task may process others as well.
        with about(task.request, task_id, task.name):
            logger.info("task_started")
        ids = {name: value for name, value in carried(task.request).items() if name != "order"}
        bind_contextvars(task_id=task_id, task=task.name, **ids)

    def receiver_task_retry(self, request: Any = None, reason: Any = None, einfo: Any = None, **kwargs: Any) -> None:
        with about(request, request.id, request.task):
            super().receiver_task_retry(request, str(reason))

    def receiver_task_failure(
        self,
        task_id: Any = None,
        exception: Any = None,
        traceback: Any = None,
        einfo: Any = None,
        sender: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if is_second_report(sender, exception, task_id):
            return
        with about(sender.request, task_id, sender.name):
            super().receiver_task_failure(task_id, exception, sender=sender)

    def receiver_task_revoked(
        self, request: Any, terminated: Any = None, signum: Any = None, expired: Any = None, **kwargs: Any
    ) -> None:
        with about(request, request.id, request.task):
            logger.warning("task_revoked", expired=expired)


def to_carry() -> dict[str, str]:
    """Return the ids to put into a message."""
    ids = get_contextvars()
    ids["parent_task_id"] = ids.get("task_id")
    return {name: ids[name] for name in CARRIED if ids.get(name)}


def carried(request: Any) -> dict[str, str]:
    """Return the well-formed ids of a task's message, which is untrusted."""
    return well_formed(getattr(request, HEADER, None))


def well_formed(told: Any) -> dict[str, str]:
    if not isinstance(told, dict):
        return {}
    return {name: told[name] for name in CARRIED if isinstance(told.get(name), str) and ID.fullmatch(told[name])}


def about(request: Any, task_id: str, task: str) -> AbstractContextManager[None]:
    """Bind a task's ids to the lines within the block; the worker's main process runs no task itself."""
    return bound_contextvars(task_id=task_id, task=task, **carried(request))


def forget(task: Any, **kwargs: Any) -> None:
    if not task.request.is_eager:
        clear_contextvars()


receiver = Receiver()
receiver.connect_worker_signals()
signals.task_postrun.connect(forget)
