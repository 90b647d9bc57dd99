"""The Celery app, the base task, and what runs when."""

import logging
import math
import os
import time
from collections.abc import Mapping
from contextvars import copy_context
from datetime import timedelta
from typing import Any, NamedTuple

# Before the app is made, so that the `celery` program finds the settings without being told.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")

from celery import Celery, current_task, signals
from celery.contrib.django.task import DjangoTask
from celery.exceptions import SoftTimeLimitExceeded
from celery.schedules import crontab
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, transaction
from kombu.exceptions import OperationalError as BrokerError

from durable.errors import TemporaryError
from myproject.logs import log_context
from myproject.transport import signing
from myproject.transport.broker_url import RABBITMQ

log = logging.getLogger(__name__)


class Task(DjangoTask):
    """What every task of the shop has in common: it retries what is temporary, with backoff, and says why it failed."""

    autoretry_for = (TemporaryError, OperationalError, InterfaceError, SoftTimeLimitExceeded)
    # 1, 2, 4, 8 … seconds, at most ten minutes, each a little off so that not all come back at once.
    retry_backoff = True
    retry_backoff_max = 600
    retry_jitter = True
    max_retries = 5
    # Seconds until a task whose process was killed runs again, which no backoff governs; the default is 180.
    default_retry_delay = 3

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Queue the task when the transaction is committed; a broker that is away costs time, not the request."""
        self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Like `apply_async`, when the transaction is committed; returns no task id."""

        # The ids of now: by the time of the commit, the code may be at another order.
        context = copy_context()

        # A named function: `robust` cannot log a functools.partial on Django 5.2.
        def publish() -> None:
            try:
                context.run(self.apply_async, *args, **kwargs)
            except (BrokerError, OSError) as error:
                log.warning("%s was not queued, the sweep will do it: %s", self.name, error)

        transaction.on_commit(publish, robust=True)

    def retry(self, *args: Any, exc: Exception | None = None, countdown: float | None = None, **options: Any) -> Any:
        """Like Celery's own, but not before the pause that a counterpart asked for, as long as that is bearable."""
        asked = min(getattr(exc, "retry_after", None) or 0, self.retry_backoff_max)
        # Whole seconds: RabbitMQ cannot wait for a part of one.
        pause = math.ceil(max(countdown or 0, asked))
        return super().retry(*args, exc=exc, countdown=pause or countdown, **options)

    def signature_from_request(self, request: Any = None, *args: Any, **options: Any) -> Any:
        """Like Celery's own; the message of another try carries the ids of the first one's."""
        request = request or self.request
        headers = {**(request.headers or {}), log_context.HEADER: log_context.carried(request)}
        return super().signature_from_request(request, *args, **{"headers": headers} | options)

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        # Here, since the app is made before Django knows its models.
        from myproject.alerting.alerts import alert_of_failure

        with log_context.about(self.request, task_id, self.name):
            log.error("%s gave up, %s, task %s: %r", self.name, kwargs or args, task_id, exc)
            alert_of_failure(self.name, exc, task_id)


def worker_name() -> str:
    """Return the name of the worker whose task runs now; empty outside of tasks."""
    return (current_task.request.hostname or "")[:120] if current_task else ""


app = Celery("myproject", task_cls=Task)

# As a string, so that worker processes need not be sent the object; the prefix keeps Celery's names apart.
app.config_from_object("django.conf:settings", namespace="CELERY")

# With Celery's own, a Redis of results that is away keeps every message from being sent.
app.loader.override_backends = dict.fromkeys(("redis", "rediss"), "myproject.transport.results:RedisBackend")

# Finds the tasks.py of each installed app.
app.autodiscover_tasks()


@app.task(bind=True, ignore_result=True)
def debug_task(self: Task) -> None:
    """Print the request that a worker received. Safe to repeat: it changes nothing."""
    print(f"Request: {self.request!r}")


class Schedule(NamedTuple):
    """One periodic task as `sync_schedules` writes it to the database.

    `expires` seconds after it was queued a run is dropped, so that a worker which was away does not catch up on
    every run it missed. `queue` None is the one of the task's routes.
    """

    task: str
    when: crontab | timedelta
    expires: int
    kwargs: Mapping[str, Any] = {}
    queue: str | None = None


# What runs often, day and night, is an interval: it takes no notice of daylight saving, which would skip an
# hour of a crontab. What goes by the clock on the wall is a crontab in the shop's own time. Each app has its
# own block, what runs often first.
SCHEDULES = {
    "Check pending orders": Schedule("orders.tasks.check_pending_orders", timedelta(seconds=30), 25),
    "Check pending pictures": Schedule("orders.tasks.check_pending_pictures", timedelta(minutes=1), 50),
    "Check unfinished imports": Schedule("orders.tasks.check_unfinished_imports", timedelta(minutes=1), 50),
    "Check unsent digests": Schedule("orders.tasks.check_unsent_digests", timedelta(minutes=5), 290),
    "Sync inventory": Schedule(
        "orders.tasks.sync_inventory", crontab(minute="0", hour="9-17", day_of_week="mon-fri"), 1800
    ),
    "Clear old events": Schedule("orders.tasks.clear_old_events", crontab(hour="3", minute="50"), 3600),
    "Clear old files": Schedule("orders.tasks.clear_old_files", crontab(hour="3", minute="55"), 3600),
    # Until Monday is over: a worker that was away on the morning still sends them.
    "Weekly digest": Schedule(
        "orders.tasks.send_weekly_digest", crontab(hour="9", minute="0", day_of_week="mon"), 14 * 3600
    ),
    "Check unsent mail": Schedule("accounts.tasks.check_unsent_mail", timedelta(minutes=1), 50),
    "Check unsynced contacts": Schedule("accounts.tasks.check_unsynced_contacts", timedelta(minutes=1), 50),
    "Clear old mail": Schedule("accounts.tasks.clear_old_mail", crontab(hour="3", minute="40"), 3600),
    "Catch up with CRM": Schedule("accounts.tasks.catch_up_with_crm", crontab(hour="4", minute="0"), 3600),
    "Check unfinished reports": Schedule("reports.tasks.check_unfinished_reports", timedelta(seconds=20), 18),
    "Check unfinished erasures": Schedule("reports.tasks.check_unfinished_erasures", timedelta(minutes=1), 50),
    "Update daily sales": Schedule("reports.tasks.update_daily_sales", timedelta(minutes=1), 50),
    "Check due report schedules": Schedule("reports.tasks.check_due_schedules", timedelta(minutes=1), 50),
    "Check unfinished packs": Schedule("reports.tasks.check_unfinished_packs", timedelta(minutes=1), 50),
    "Clear old reports": Schedule("reports.tasks.clear_old_reports", crontab(hour="3", minute="30"), 3600),
    "Heartbeat": Schedule("myproject.tasks.heartbeat", timedelta(minutes=1), 50),
    # Sent by beat itself, so that one queue that stands still hides no other. They expire late: a queue that is an hour
    # behind should say so.
    **{
        f"Canary of {queue}": Schedule("myproject.tasks.canary", timedelta(minutes=1), 3600, {"queue": queue}, queue)
        for queue in ("default", "orders", "mail", "bulk", "reports")
    },
    "Check unsent alerts": Schedule("myproject.tasks.check_unsent_alerts", timedelta(minutes=1), 50),
    "Clear task results": Schedule("myproject.tasks.clear_task_results", crontab(hour="3", minute="10"), 3600),
    "Clear sessions": Schedule("myproject.tasks.clear_sessions", crontab(hour="3", minute="20"), 3600),
    "Clear old alerts": Schedule("myproject.tasks.clear_old_alerts", crontab(hour="3", minute="25"), 3600),
}


@signals.celeryd_init.connect
def be_patient_with_the_broker(conf: Any, **kwargs: Any) -> None:
    """A customer waits for the web's publish, nobody waits for a worker's: let it outlast a slow broker."""
    conf.broker_transport_options = conf.broker_transport_options | settings.BROKER.patient
    conf.broker_connection_timeout = 5
    conf.task_publish_retry_policy = {"max_retries": 5, "interval_start": 0, "interval_step": 0.5, "interval_max": 2}


@signals.setup_logging.connect
def leave_logging_to_django(**kwargs: Any) -> None:
    """Be there: without a receiver Celery replaces the handlers of Django's LOGGING by its own."""


@signals.celeryd_init.connect
def prepare_rabbitmq(**kwargs: Any) -> None:
    if settings.BROKER is RABBITMQ:
        # Here, since only a worker needs what it imports.
        from myproject.transport import rabbitmq

        rabbitmq.prepare(app)


@signals.before_task_publish.connect
def note_the_time(headers: dict[str, Any], **kwargs: Any) -> None:
    """Let a message say how long it has waited: Celery's own do not."""
    headers["sent_at"] = time.time()


@app.on_after_configure.connect
def sign_messages(sender: Celery, **kwargs: Any) -> None:
    """Let every process that has read the settings sign, where they say so."""
    signing.set_up(sender)


@signals.before_task_publish.connect
def bind_headers(headers: dict[str, Any], body: Any, **kwargs: Any) -> None:
    """Put what decides into the part of the message that is signed."""
    if signing.is_on(app.conf):
        signing.bind(headers, embed=body[2])


@signals.task_prerun.connect
def drop_dead_connections(task: Task, **kwargs: Any) -> None:
    """Connections are kept between tasks; one that died with the database is replaced before the next task."""
    # A task that is applied in place uses its caller's connection, perhaps within a transaction.
    if not task.request.is_eager:
        close_old_connections()
