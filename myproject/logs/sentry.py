"""Errors to Sentry: one event for each task that gives up, each view that fails, each logged exception.

Loaded only where `SENTRY_DSN` is set. Sentry learns what the log says, and no more: `scrub` and the ids are the same.
"""

from typing import Any

import sentry_sdk
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.integrations.logging import ignore_logger
from structlog.contextvars import get_contextvars

from durable.task import is_second_report
from myproject.logs.log_context import about
from myproject.logs.logs import scrub

# Their errors are reported already, or are a visitor's mistake.
IGNORED = ("django_structlog.*", "django.request", "django.security.*", "celery.*", "gunicorn.*")
TAGS = ("request_id", "task_id", "task", "parent_task_id", "order")


def start(dsn: str) -> None:
    """Start the SDK, which reads SENTRY_RELEASE and SENTRY_ENVIRONMENT itself."""
    for name in IGNORED:
        ignore_logger(name)
    sentry_sdk.init(
        dsn=dsn,
        # No header of Sentry's travels with the messages.
        integrations=[CeleryIntegration(propagate_traces=False), DjangoIntegration()],
        auto_enabling_integrations=False,
        send_default_pii=False,
        max_request_body_size="never",
        # Local variables and breadcrumbs may contain addresses and names.
        include_local_variables=False,
        max_breadcrumbs=0,
        before_send=prepare,
    )
    signals.task_failure.connect(send_lost_task)


def prepare(event: Any, hint: dict[str, Any]) -> Any:
    """Return the scrubbed event; None for a line without an exception, which belongs to the log only."""
    if not hint.get("exc_info"):
        return None
    ids = get_contextvars()
    event["tags"] = {**event.get("tags", {}), **{name: ids[name] for name in TAGS if name in ids}}
    # URL, headers and cookies identify the visitor; the event's transaction names the view.
    event["request"] = {"method": event.get("request", {}).get("method", "")}
    for private in ("user", "breadcrumbs"):
        event.pop(private, None)
    return scrubbed(event)


def scrubbed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: scrubbed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrubbed(item) for item in value]
    return scrub(value) if isinstance(value, str) else value


def send_lost_task(sender: Any, task_id: str, exception: BaseException, **kwargs: Any) -> None:
    """Report a task whose process died, which only the worker's main process knows."""
    is_lost = isinstance(exception, TimeLimitExceeded | WorkerLostError)
    if is_lost and not is_second_report(sender, exception, task_id):
        with about(sender.request, task_id, sender.name):
            sentry_sdk.capture_exception(exception)
