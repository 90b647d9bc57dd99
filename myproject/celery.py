"""The Celery app, and what each of its processes does as it starts."""

import os
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

# Before the app is made, so that the `celery` program finds the settings without being told.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")

from celery import Celery, current_task, signals
from celery.schedules import crontab
from django.conf import settings
from django.db import close_old_connections

from durable.task import Task
from myproject.transport import signing


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
    """Keep the handlers of Django's LOGGING: without a receiver Celery replaces them by its own."""


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
