"""The traps of Celery that a machine can see, one small function each.

A trap makes no queries. It looks at a `Setup`, yields a sentence for each finding, and skips what is not filled in;
`registration.py` fills it in. The documentation lists all traps. An app adds its own with `trap`, in a module that its
`ready` imports.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from celery.app.defaults import NAMESPACES, flatten
from celery.app.routes import MapRoute
from django.core.checks import CheckMessage, Error, Warning

TAG = "celery"


class Entry(NamedTuple):
    """A task that beat will queue; with an empty queue, the routes decide."""

    where: str
    task: str
    queue: str = ""


class Policy(NamedTuple):
    """Limits, retries and acknowledgement of one task, or of all tasks."""

    where: str
    acks_late: bool | None
    acks_on_timeout: bool | None
    soft_time_limit: float | None
    time_limit: float | None
    reject_on_worker_lost: bool | None
    retry_on_worker_lost: bool | None
    # Celery has no global setting for it; None means no limit.
    max_retries: int | None = 0


@dataclass(frozen=True)
class Setup:
    """Everything that the traps look at."""

    conf: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Any] = field(default_factory=dict)
    entries: Collection[Entry] = ()
    databases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # The names of the settings that are Celery's, in lower case, without the prefix.
    names: Collection[str] = ()
    caches: Collection[str] = ()
    # Whether beat reads its schedules from the database.
    schedules_in_database: bool = False
    in_worker: bool = False
    # The name of a worker's pool that does not enforce time limits, where tasks have some; empty for prefork.
    unlimited_pool: str = ""
    # What the broker does when its memory is full.
    eviction_policy: str = "noeviction"
    # Servers that did not answer, each with its error.
    unanswered: Collection[str] = ()


Find = Callable[[Setup], Iterable[str]]


class Trap(NamedTuple):
    id: str
    danger: str
    hint: str
    # A public report of it: owner/repository#number on GitHub, or empty.
    seen: str
    find: Find

    def message(self, place: str) -> CheckMessage:
        kind = Error if ".E" in self.id else Warning
        return kind(f"{place}. {self.danger}", hint=self.hint, obj="Celery", id=self.id)


TRAPS: list[Trap] = []


def trap(number: str, danger: str, *, hint: str, seen: str = "") -> Callable[[Find], Find]:
    def add(find: Find) -> Find:
        TRAPS.append(Trap(f"{TAG}.{number}", danger, hint, seen, find))
        return find

    return add


# --- Time limits and what happens when a task dies -----------------------------------------------------------


@trap(
    "E001",
    "The hard limit kills the task before it could answer its soft one: it is not retried, and its row stays as it is.",
    hint="Set both, task_soft_time_limit below task_time_limit; or soft_time_limit and time_limit of that task.",
    seen="pmclanahan/django-celery-email#73",
)
def soft_limit_does_not_come_first(setup: Setup) -> Iterator[str]:
    for policy in worst(setup, kills_without_warning):
        yield f"{policy.where}: soft limit {policy.soft_time_limit}, hard limit {policy.time_limit}"


@trap(
    "E002",
    "The broker delivers the message again while its first worker is still busy with it: two run the task at once.",
    hint="Set a hard limit below visibility_timeout in broker_transport_options (Redis) or the queue's "
    "x-consumer-timeout (RabbitMQ), or raise that.",
    seen="celery/celery#5935",
)
def task_outlives_the_visibility_timeout(setup: Setup) -> Iterator[str]:
    if uses_redis(setup):
        yield from outliving(setup, "visibility timeout", transport_options(setup).get("visibility_timeout", 3600))
    if uses_rabbitmq(setup):
        queues = setup.conf.get("task_queues") or [None]
        yield from outliving(setup, "consumer timeout", min(map(consumer_timeout, queues)))


@trap(
    "E003",
    "A poison message: a task that kills its worker, by memory for example, is redelivered and kills the next one.",
    hint="Set task_retry_on_worker_lost and a max_retries in place of task_reject_on_worker_lost.",
    seen="OasisLMF/OasisPlatform#967",
)
def worker_loss_is_repeated_forever(setup: Setup) -> Iterator[str]:
    for policy in worst(setup, repeats_forever):
        yield (
            f"{policy.where}: reject_on_worker_lost {policy.reject_on_worker_lost}, "
            f"retry_on_worker_lost {policy.retry_on_worker_lost}, max_retries {policy.max_retries}"
        )


@trap(
    "E004",
    "On Redis a task that exceeds its hard limit is redelivered and exceeds it again, forever.",
    hint="Leave task_acks_on_timeout (before Celery 5.7: task_acks_on_failure_or_timeout) true; sweep for the rest.",
    seen="celery/celery#9596",
)
def timeout_is_repeated_forever(setup: Setup) -> Iterator[str]:
    for policy in worst(setup, lambda it: bool(it.acks_late) and it.acks_on_timeout is False):
        yield f"{policy.where}: acks_on_timeout is false"


@trap(
    "W008",
    "Late acknowledgement does not cover it: the message of a task whose process is killed is acknowledged as failed.",
    hint="Set task_retry_on_worker_lost, which max_retries bounds, and make the task safe to repeat.",
)
def killed_process_loses_its_task(setup: Setup) -> Iterator[str]:
    for policy in worst(setup, loses_what_is_killed):
        yield f"{policy.where}: acks_late without retry_on_worker_lost"


@trap(
    "E014",
    "This pool does not enforce time limits: an overdue task keeps running beside the worker that takes over its row.",
    hint="Start the worker with --pool prefork, which is Celery's default.",
)
def pool_does_not_enforce_limits(setup: Setup) -> Iterator[str]:
    if setup.unlimited_pool:
        yield f"The worker's pool is {setup.unlimited_pool}"


@trap(
    "E015",
    "A worker holds messages that exceed the rate limit, and meanwhile receives none from any queue.",
    hint="Remove it. Give what must be slow a queue, and a worker with few processes, of its own.",
)
def rate_limit_stops_all_queues(setup: Setup) -> Iterator[str]:
    if setup.conf.get("worker_disable_rate_limits"):
        return
    if rate := setup.conf.get("task_default_rate_limit"):
        yield f"task_default_rate_limit is {rate!r}"
        return
    # What task_annotations says stands on the task as well.
    for name, task in setup.tasks.items():
        if rate := getattr(task, "rate_limit", None):
            yield f"{name}: rate_limit is {rate!r}"


# --- Broker and messages -------------------------------------------------------------------------------------


@trap(
    "E005",
    "A web request that queues a task hangs forever on a broker that is frozen or unreachable.",
    hint="Set in broker_transport_options, to a second or two: socket_timeout and socket_connect_timeout for Redis, "
    "read_timeout and write_timeout for RabbitMQ.",
    seen="celery/celery#4296",
)
def broker_may_take_forever(setup: Setup) -> Iterator[str]:
    wanted: tuple[str, ...] = ("socket_timeout", "socket_connect_timeout") if uses_redis(setup) else ()
    for name in ("read_timeout", "write_timeout") if uses_rabbitmq(setup) else wanted:
        if not transport_options(setup).get(name):
            yield f"broker_transport_options has no {name}"


@trap(
    "E006",
    "A pickle message can execute arbitrary code with the rights of the worker.",
    hint='Set accept_content, task_serializer and result_serializer to JSON ("auth" for signed messages).',
)
def pickle_is_welcome(setup: Setup) -> Iterator[str]:
    for name in ("accept_content", "result_accept_content", "task_serializer", "result_serializer"):
        value = setup.conf.get(name) or ()
        if {"pickle", "application/x-python-serialize"} & set([value] if isinstance(value, str) else value):
            yield f"{name} names pickle"


@trap(
    "E007",
    "When its memory is full, Redis silently evicts messages.",
    hint="Set maxmemory-policy noeviction on the server.",
)
def broker_forgets(setup: Setup) -> Iterator[str]:
    if setup.eviction_policy != "noeviction":
        yield f"The broker's maxmemory-policy is {setup.eviction_policy}"


# --- Names ---------------------------------------------------------------------------------------------------


@trap(
    "E008",
    "Beat keeps queueing it, and every worker discards it as unregistered.",
    hint="Correct the name, or remove or disable the schedule.",
)
def schedule_names_no_task(setup: Setup) -> Iterator[str]:
    for entry in setup.entries:
        if entry.task not in setup.tasks:
            yield f"{entry.where} names the task {entry.task!r}, which does not exist"


@trap(
    "E009",
    "The intended task goes to another queue, perhaps one that its worker does not read.",
    hint="Correct the name in task_routes, or remove the route.",
)
def route_names_no_task(setup: Setup) -> Iterator[str]:
    for pattern, target in routes(setup):
        match = MapRoute({pattern: target})
        if not any(match(task) is not None for task in setup.tasks):
            yield f"The route {pattern!r} matches no task"


@trap(
    "E010",
    "Publishing fails, or the messages wait in a queue that no worker reads.",
    hint="Declare the queue in task_queues, or correct its name.",
)
def queue_is_not_declared(setup: Setup) -> Iterator[str]:
    declared = {queue_name(queue) for queue in setup.conf.get("task_queues") or [setup.conf.get("task_default_queue")]}
    for where, queue in named_queues(setup):
        if queue not in declared:
            yield f"{where} names the queue {queue!r}, which is not declared"


@trap(
    "W001",
    "A mistyped queue is created on the fly: its messages wait forever, since no worker reads it.",
    hint="Set task_create_missing_queues to False and declare the queues in task_queues.",
)
def mistyped_queues_are_made(setup: Setup) -> Iterator[str]:
    if setup.conf.get("task_create_missing_queues"):
        yield "task_create_missing_queues is on"


@trap(
    "W002",
    "Celery ignores unknown settings: what was meant to be on is off.",
    hint="Look the name up in Celery's configuration reference; give settings of your own another prefix.",
)
def setting_does_not_exist(setup: Setup) -> Iterator[str]:
    # Two that Celery reads without listing them.
    known = {name for name, _ in flatten(NAMESPACES)} | {"db_reuse_max", "visibility_timeout"}
    for name in sorted(set(setup.names) - known):
        yield f"CELERY_{name.upper()} is not a Celery setting"


@trap(
    "W006",
    "The result backend django-cache finds no such cache and stores no result; any other ignores the setting.",
    hint="Set CELERY_CACHE_BACKEND to a name in CACHES, such as default, or remove it.",
)
def cache_of_results_does_not_exist(setup: Setup) -> Iterator[str]:
    name = setup.conf.get("cache_backend")
    # Celery's own backend takes addresses there.
    if name and "://" not in name and name not in setup.caches:
        yield f"cache_backend names {name!r}, which is not in CACHES"


@trap(
    "W007",
    "At each start beat overwrites what was edited in the admin, and a schedule that is removed here keeps running.",
    hint="Declare them in the schedules.py of an app, for `manage.py sync_schedules`, and remove CELERY_BEAT_SCHEDULE.",
)
def schedules_are_declared_twice(setup: Setup) -> Iterator[str]:
    if setup.schedules_in_database and (entries := setup.conf.get("beat_schedule")):
        yield f"beat_schedule has {', '.join(map(repr, sorted(entries)))}, and beat reads the database"


# --- Processes -----------------------------------------------------------------------------------------------


@trap(
    "E011",
    "Every task runs inside the web request that queues it: without retry and time limit, and the visitor waits.",
    hint="Remove task_always_eager. A test can call apply(); settings of tests alone may silence this check.",
)
def tasks_run_in_the_request(setup: Setup) -> Iterator[str]:
    if setup.conf.get("task_always_eager"):
        yield "task_always_eager is on"


@trap(
    "E012",
    "After a restart of the database, each task that is given one of the old connections fails.",
    hint="Set CONN_MAX_AGE and CONN_HEALTH_CHECKS, and call close_old_connections() on task_prerun.",
)
def dead_connections_are_reused(setup: Setup) -> Iterator[str]:
    if setup.conf.get("db_reuse_max"):
        for alias, database in setup.databases.items():
            if not has_pool(database) and not database.get("CONN_HEALTH_CHECKS"):
                yield f"CELERY_DB_REUSE_MAX is set and the database {alias!r} has no CONN_HEALTH_CHECKS"


@trap(
    "W003",
    "Celery closes the pool around every task, so a worker opens more connections with it than without.",
    hint="Give the pool to the web processes only; let workers keep one connection, by CELERY_DB_REUSE_MAX.",
    seen="celery/celery#10554",
)
def worker_has_a_pool(setup: Setup) -> Iterator[str]:
    if setup.in_worker:
        yield from (
            f"The database {alias!r} has a pool" for alias, database in setup.databases.items() if has_pool(database)
        )


@trap(
    "W004",
    "Checks that need this server were skipped.",
    hint="Check again when it answers.",
)
def server_did_not_answer(setup: Setup) -> Iterable[str]:
    return setup.unanswered


# --- Helpers -------------------------------------------------------------------------------------------------


def worst(setup: Setup, is_wrong: Callable[[Policy], bool]) -> list[Policy]:
    """Return the global policy if it is wrong, else each task's policy that is."""
    common = common_policy(setup.conf)
    return [common] if is_wrong(common) else list(filter(is_wrong, own_policies(setup.tasks)))


def common_policy(conf: Mapping[str, Any]) -> Policy:
    limits = {name: conf.get(f"task_{name}") for name in Policy._fields if name not in ("where", "max_retries")}
    if limits["acks_on_timeout"] is None:
        limits["acks_on_timeout"] = conf.get("task_acks_on_failure_or_timeout")
    return Policy("Settings for all tasks", **limits)


def own_policies(tasks: Mapping[str, Any]) -> list[Policy]:
    """Return the policy of each task, except Celery's own."""
    ours = [task for name, task in tasks.items() if not name.startswith("celery.")]
    return [Policy(task.name, *(getattr(task, name) for name in Policy._fields[1:])) for task in ours]


def kills_without_warning(policy: Policy) -> bool:
    soft, hard = policy.soft_time_limit, policy.time_limit
    return bool(hard and not (soft and soft < hard))


def repeats_forever(policy: Policy) -> bool:
    # A retry comes first, and needs no late acknowledgement.
    if policy.retry_on_worker_lost:
        return policy.max_retries is None
    return bool(policy.acks_late and policy.reject_on_worker_lost)


def loses_what_is_killed(policy: Policy) -> bool:
    return bool(policy.acks_late and not (policy.retry_on_worker_lost or policy.reject_on_worker_lost))


def uses_redis(setup: Setup) -> bool:
    return bool(re.match(r"(redis|rediss|sentinel)\b", str(setup.conf.get("broker_url"))))


def uses_rabbitmq(setup: Setup) -> bool:
    return bool(re.match(r"(py)?amqps?\b", str(setup.conf.get("broker_url"))))


def outliving(setup: Setup, what: str, seconds: float) -> Iterator[str]:
    for policy in worst(setup, lambda it: bool(it.acks_late) and not 0 < (it.time_limit or 0) < seconds):
        yield f"{policy.where}: hard limit {policy.time_limit}, {what} {seconds:g}"


def consumer_timeout(queue: Any) -> float:
    """Return RabbitMQ's consumer timeout of the queue, in seconds."""
    arguments = getattr(queue, "queue_arguments", None) or {}
    return float(arguments.get("x-consumer-timeout", 1_800_000)) / 1000


def transport_options(setup: Setup) -> Mapping[str, Any]:
    return setup.conf.get("broker_transport_options") or {}


def routes(setup: Setup) -> list[tuple[Any, Any]]:
    """Return patterns and targets; routes that are functions are skipped."""
    given = setup.conf.get("task_routes") or ()
    tables = [given] if isinstance(given, Mapping) else [table for table in given if isinstance(table, Mapping)]
    return [pair for table in tables for pair in table.items()]


def named_queues(setup: Setup) -> Iterator[tuple[str, Any]]:
    yield "task_default_queue", setup.conf.get("task_default_queue")
    for pattern, target in routes(setup):
        queue = target.get("queue") if isinstance(target, Mapping) else target
        if queue:
            yield f"The route {pattern!r}", queue_name(queue)
    yield from ((entry.where, entry.queue) for entry in setup.entries if entry.queue)


def queue_name(queue: Any) -> Any:
    return getattr(queue, "name", queue)


def has_pool(database: Mapping[str, Any]) -> bool:
    return bool((database.get("OPTIONS") or {}).get("pool"))
