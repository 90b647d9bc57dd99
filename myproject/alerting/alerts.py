"""How the shop calls a person: once for each cause, and again only after a pause."""

import logging
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals
from celery.exceptions import Reject
from django.db import Error, close_old_connections, connection, connections, transaction

from myproject.alerting.models import Alert
from myproject.alerting.tasks import send_alert
from myproject.logs import log_context
from myproject.logs.logs import scrub

log = logging.getLogger(__name__)


def alert(subject: str, message: str, cause: str = "", queue: str | None = None, times: int = 1) -> None:
    """Tell whoever looks after the shop; call it after the commit.

    The same `cause`, by default the subject, is told once and then only counted until the cool-down has passed. This
    neither raises nor waits for a chat: what cannot be written down is in the log all the same. `queue` is the one
    that the message takes instead of its own; `times` is how often it has happened.
    """
    # Whatever must not reach the log must not reach a chat.
    message = scrub(message)
    log.error("%s: %s", subject, message)
    try:
        with transaction.atomic():
            row = Alert.objects.record(cause or subject, subject, message, times)
    except Error as error:
        log.error("Nobody will be told, the database does not take the alert: %s", type(error).__name__)
        return
    if row.is_due:
        send_alert.apply_async_on_commit(kwargs={"alert_id": row.pk}, queue=queue)


def alert_of_failure(task: str, error: BaseException, task_id: str) -> None:
    """Alert that a task gave up, once for each kind of error; its text and the arguments may hold personal data."""
    # The database may be what has failed; a task that is applied in place may stand within its caller's transaction.
    if not connection.in_atomic_block:
        close_old_connections()
    kind = type(error).__name__
    alert(f"{task} gave up", f"{kind} in task {task_id}; the worker's log says more.", cause=f"{task} {kind}")
    # These two are found by the worker's main process, whose next children must not share its connection.
    if isinstance(error, TimeLimitExceeded | WorkerLostError):
        connections.close_all()


@signals.task_failure.connect
def note_failure(
    sender: Any, exception: BaseException, task_id: str, args: Any = (), kwargs: Any = None, **rest: Any
) -> None:
    """Log and alert that a task gave up. The alert's own task is only logged: an alert of it would never end."""
    # Celery sends it for a message that is thrown away on purpose, too, and twice for a hard limit.
    is_second = isinstance(exception, TimeLimitExceeded) and sender.request.id == task_id
    if is_second or isinstance(exception, Reject):
        return
    with log_context.about(sender.request, task_id, sender.name):
        log.error("%s gave up, %s, task %s: %r", sender.name, kwargs or args, task_id, exception)
        if sender.name != send_alert.name:
            alert_of_failure(sender.name, exception, task_id)
