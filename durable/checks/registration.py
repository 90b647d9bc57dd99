"""`manage.py check` for Celery: builds a `Setup` from what may be queried, and runs the traps on it."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from celery import current_app, signals
from celery.concurrency import get_implementation, prefork
from celery.utils.imports import load_extension_class_names, symbol_by_name
from django.conf import settings
from django.core.checks import CheckMessage, register
from django.core.management.base import BaseCommand, SystemCheckError
from django.db import connections, router
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from durable.checks.traps import TAG, TRAPS, Entry, Setup, queue_name, uses_redis
from durable.schedules import declared


def found(setup: Setup) -> list[CheckMessage]:
    return [trap.message(place) for trap in TRAPS for place in trap.find(setup)]


@register(TAG)
def check_setup(databases: Collection[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check settings, tasks and schedules; schedules in the database only with `--database`."""
    setup = this_setup()
    return found(replace(setup, entries=[*setup.entries, *periodic_tasks(databases or ())]))


@register(TAG, deploy=True)
def check_broker(databases: Collection[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Query Redis with `--deploy --database` only: without the latter, checks must not need a server."""
    if not databases or not uses_redis(Setup(conf=current_app.conf)):
        return []
    try:
        return found(Setup(eviction_policy=eviction_policy()))
    except (BrokerError, RedisError, OSError) as error:
        return found(Setup(unanswered=[f"The broker does not answer: {str(error).splitlines()[0].rstrip('.')}"]))


def check_worker(pool: str) -> list[CheckMessage]:
    return found(Setup(in_worker=True, unlimited_pool=pool, databases=settings.DATABASES))


def unlimited_pool(options: Mapping[str, Any]) -> str:
    """Return the name of the worker's pool if it does not enforce time limits; only prefork does."""
    # Celery has both names for it, and its program uses the first.
    given = options.get("pool") or options.get("pool_cls") or current_app.conf.worker_pool
    pool = get_implementation(given)
    return "" if issubclass(pool, prefork.TaskPool) else pool.__module__.rpartition(".")[2]


@signals.celeryd_init.connect
def stop_worker_with_errors(options: Mapping[str, Any], **kwargs: Any) -> None:
    """Refuse to start a worker with errors: Celery runs the checks and ignores their result."""
    pool = unlimited_pool(options)

    # These checks concern workers only, and only a worker knows that it is one.
    @register(TAG)
    def check(**kwargs: Any) -> list[CheckMessage]:
        return check_worker(pool)

    try:
        BaseCommand().check(tags=[TAG])
    except SystemCheckError as error:
        # Celery only logs other exceptions raised in its signals.
        raise SystemExit(str(error)) from None


def this_setup() -> Setup:
    # Not by `import_default_modules`, which would run the checks again.
    current_app.autodiscover_tasks(force=True)
    ours = [Entry(f"The schedule {name!r}", each.task, each.queue or "") for name, each in declared().items()]
    return Setup(
        conf=current_app.conf,
        tasks=current_app.tasks,
        entries=[*ours, *beat_entries(current_app.conf)],
        databases=settings.DATABASES,
        names=[name.removeprefix("CELERY_").lower() for name in dir(settings) if name.startswith("CELERY_")],
        caches=settings.CACHES,
        schedules_in_database=reads_database(current_app.conf.beat_scheduler),
    )


def reads_database(scheduler: str | type) -> bool:
    """Return whether the scheduler is django-celery-beat's or a subclass of it."""
    found = symbol_by_name(scheduler, aliases=dict(load_extension_class_names("celery.beat_schedulers")))
    return issubclass(found, DatabaseScheduler)


def beat_entries(conf: Mapping[str, Any]) -> list[Entry]:
    entries = (conf.get("beat_schedule") or {}).items()
    return [
        Entry(f"beat_schedule[{name!r}]", entry["task"], queue_name((entry.get("options") or {}).get("queue", "")))
        for name, entry in entries
    ]


def periodic_tasks(databases: Collection[str]) -> list[Entry]:
    """Return the enabled rows; none before the first migration."""
    alias = router.db_for_read(PeriodicTask)
    if alias not in databases or PeriodicTask._meta.db_table not in connections[alias].introspection.table_names():
        return []
    rows = PeriodicTask.objects.using(alias).filter(enabled=True).order_by("name")
    return [Entry(f"The periodic task {row.name!r} in the database", row.task, row.queue or "") for row in rows]


def eviction_policy() -> str:
    """Ask Redis; raise `BrokerError`, `RedisError` or `OSError` when it does not answer."""
    with current_app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, reraise_as_library_errors=True)
        # INFO, since hosted servers often refuse CONFIG.
        return str(connection.channel().client.info("memory")["maxmemory_policy"])
