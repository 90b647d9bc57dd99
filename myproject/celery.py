"""The Celery app, and what each of its processes does as it starts."""

import gc
import logging
import os
import time
from pathlib import Path
from typing import Any

# Before the app is created, so that the `celery` program finds the settings; only saves saying it each time.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")

import django
from celery import Celery, current_task, signals
from celery.loaders.app import AppLoader
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import close_old_connections
from kombu.transport import TRANSPORT_ALIASES

from durable.task import Task
from myproject.logs import secrets
from myproject.transport import signing


def worker_name() -> str:
    """Return the name of the current task's worker; empty outside of tasks."""
    return (current_task.request.hostname or "")[:120] if current_task else ""


class Loader(AppLoader):
    """Celery's own; settings that cannot be used end a `celery` command in one line."""

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        try:
            return bool(super().config_from_object(obj, silent))
        except ImproperlyConfigured as error:
            raise SystemExit(str(error)) from None


# Before anybody asks an app for them.
secrets.show_no_other_settings()
# One instance: Celery allows several with settings of their own, for which a Django project has no use.
app = Celery(
    "myproject", task_cls=Task, loader="myproject.celery:Loader", control="myproject.transport.control:Control"
)

# As a string, so that worker processes need not be sent the object. The prefix could be left out, and keeps Celery's
# names apart from Django's.
app.config_from_object("django.conf:settings", namespace="CELERY")

# With Celery's own backend, an unavailable Redis of results prevents every message from being sent.
app.loader.override_backends = dict.fromkeys(("redis", "rediss"), "myproject.transport.results:RedisBackend")

# With Kombu's own transports, one malformed message or a full Redis ends the worker.
TRANSPORT_ALIASES.update(
    redis="myproject.transport.on_redis:Transport",
    rediss="myproject.transport.on_redis:Transport",
    sentinel="myproject.transport.on_redis:SentinelTransport",
    amqp="myproject.transport.on_rabbitmq:Transport",
    pyamqp="myproject.transport.on_rabbitmq:Transport",
    amqps="myproject.transport.on_rabbitmq:SSLTransport",
)

# Finds the tasks.py of each installed app, so that CELERY_IMPORTS need not list them.
app.autodiscover_tasks()


@app.task(bind=True, ignore_result=True)
def debug_task(self: Task) -> None:
    """Print the request that a worker received. Safe to repeat: it changes nothing."""
    print(f"Request: {self.request!r}")


@signals.celeryd_init.connect
def wait_longer_for_the_broker(conf: Any, **kwargs: Any) -> None:
    """Let a worker's publish outlast a slow broker; the web's must not, since a customer waits for it."""
    conf.broker_transport_options = conf.broker_transport_options | settings.BROKER.worker_options
    conf.broker_connection_timeout = 5
    conf.task_publish_retry_policy = {"max_retries": 5, "interval_start": 0, "interval_step": 0.5, "interval_max": 2}


@signals.setup_logging.connect
def leave_logging_to_django(logfile: str | None = None, **kwargs: Any) -> None:
    """Keep the handlers of Django's LOGGING: without a receiver Celery replaces them by its own.

    What they write goes into the `--logfile`, where one is named: `celery multi` has no terminal.
    """
    for handler in logging.getLogger().handlers:
        if logfile and isinstance(handler, logging.StreamHandler):
            # Closed by the end of the process, as the terminal would be.
            handler.setStream(Path(logfile).open("a"))  # noqa: SIM115


@signals.worker_before_create_process.connect
def share_memory_with_children(**kwargs: Any) -> None:
    """Keep the collector off what is loaded by now: a child that looks through it gets a copy of each page."""
    gc.collect()
    gc.freeze()


@signals.before_task_publish.connect
def note_the_time(headers: dict[str, Any], **kwargs: Any) -> None:
    """Add the time of sending to each message, which Celery does not do."""
    headers["sent_at"] = time.time()


@app.on_after_configure.connect
def set_up_django(**kwargs: Any) -> None:
    """Load the models for commands that Celery forgets: `call` and `result` use the table of results."""
    if not (apps.ready or apps.loading):
        django.setup()


@signals.celeryd_init.connect
def refuse_unknown_queues(options: dict[str, Any], conf: Any, **kwargs: Any) -> None:
    """Say in one line that there is no such queue, which Celery says in forty."""
    asked = set(options.get("queues") or ()) | set(options.get("exclude_queues") or ())
    names = [queue.name for queue in conf.task_queues]
    if unknown := sorted(asked - set(names)):
        raise SystemExit(f"There is no queue {', '.join(unknown)}. There are: {', '.join(names)} (CELERY_TASK_QUEUES).")


@app.on_after_configure.connect
def sign_messages(sender: Celery, **kwargs: Any) -> None:
    """Sign messages in every process, if the settings say so."""
    signing.set_up(sender)


@signals.before_task_publish.connect
def bind_headers(headers: dict[str, Any], body: Any, **kwargs: Any) -> None:
    """Copy the deciding headers into the signed part of the message."""
    if signing.is_on(app.conf):
        signing.bind(headers, embed=body[2])


@signals.task_prerun.connect
def drop_dead_connections(task: Task, **kwargs: Any) -> None:
    """Replace dead database connections before a task: they are kept between tasks."""
    # A task that is applied in place uses its caller's connection, perhaps inside a transaction.
    if not task.request.is_eager:
        close_old_connections()
