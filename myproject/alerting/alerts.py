"""Alerts to the operators: one per cause, repeated only after a cool-down."""

import logging
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals
from celery.exceptions import Reject
from django.db import Error, close_old_connections, connection, connections, transaction

from durable.task import is_second_report
from myproject.alerting.models import Alert
from myproject.alerting.tasks import send_alert
from myproject.logs import log_context
from myproject.logs.logs import scrub

log = logging.getLogger(__name__)


def alert(subject: str, message: str, cause: str = "", queue: str | None = None, times: int = 1) -> None:
    """Alert the operators; call it after the commit.

    The same `cause`, by default the subject, is sent once and then only counted until the cool-down has passed. This
    neither raises nor waits for a chat: an alert that cannot be stored is still in the log. `queue` overrides the
    queue of the message; `times` is how often it has happened.
    """
    # What must not be logged must not be sent to a chat either.
    message = scrub(message)
    log.error("%s: %s", subject, message)
    try:
        with transaction.atomic():
            row = Alert.objects.record(cause or subject, subject, message, times)
    except Error as error:
        log.error("The alert was not stored and will not be sent, the database failed: %s", type(error).__name__)
        return
    if row.is_due:
        send_alert.apply_async_on_commit(kwargs={"alert_id": row.pk}, queue=queue)


def alert_of_failure(task: str, error: BaseException, task_id: str) -> None:
    """Alert that a task failed, once per kind of error, without text and arguments, which may hold personal data."""
    # The database may have failed; a task that is applied in place may be inside its caller's transaction.
    if not connection.in_atomic_block:
        close_old_connections()
    kind = type(error).__name__
    alert(f"{task} gave up", f"{kind} in task {task_id}; the worker's log says more.", cause=f"{task} {kind}")
    # These two are reported by the worker's main process, whose next children must not share its connection.
    if isinstance(error, TimeLimitExceeded | WorkerLostError):
        connections.close_all()


@signals.task_failure.connect
def note_failure(
    sender: Any, exception: BaseException, task_id: str, args: Any = (), kwargs: Any = None, **rest: Any
) -> None:
    """Log and alert that a task failed. The alert's own task is only logged, to avoid a loop."""
    # Celery also sends it for messages that are rejected on purpose.
    if is_second_report(sender, exception, task_id) or isinstance(exception, Reject):
        return
    with log_context.about(sender.request, task_id, sender.name):
        log.error("%s gave up, %s, task %s: %r", sender.name, kwargs or args, task_id, exception)
        if sender.name != send_alert.name:
            alert_of_failure(sender.name, exception, task_id)
