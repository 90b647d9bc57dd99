"""Each trap of `manage.py check` is sprung once; the shop itself springs none."""

import os
import subprocess
import sys
import tempfile
from collections import ChainMap
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from django.conf import settings
from django.core.checks import CheckMessage, run_checks
from django.core.management import call_command
from django.db import connection
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from kombu import Queue
from redis.exceptions import NoPermissionError

from durable.checks import registration as checks
from durable.checks.traps import TRAPS, Entry, Setup
from myproject import embedded
from myproject.celery import app
from myproject.transport import certificates
from tests.broker import QUEUES, Broker

pytest_plugins = ["tests.broker"]

NOWHERE = "redis://127.0.0.1:1/0"
SHOP = checks.this_setup()


def conf(**changes: Any) -> Setup:
    """Return the shop with other settings of Celery's."""
    return replace(SHOP, conf=ChainMap(changes, app.conf))


SAFE = {"acks_late": True, "retry_on_worker_lost": True}


def task(**options: Any) -> Setup:
    """Return the shop with one more task."""

    def sample() -> None:
        pass

    made = Celery(set_as_current=False, fixups=[]).task(name="sample", lazy=False, **SAFE | options)(sample)
    return replace(SHOP, tasks={**SHOP.tasks, "sample": made})


def entry(**names: str) -> Setup:
    return replace(SHOP, entries=[Entry("A schedule", **{"task": "myproject.tasks.add"} | names)])


def database(**options: Any) -> Setup:
    return replace(SHOP, databases={"default": options})


def options(**changes: Any) -> Setup:
    return conf(broker_transport_options=SHOP.conf["broker_transport_options"] | changes)


def rabbitmq(queue_arguments: dict[str, Any], **options: float) -> Setup:
    queues = [Queue(name, queue_arguments=queue_arguments) for name in QUEUES]
    transport = {"read_timeout": 1, "write_timeout": 1} | options
    return conf(broker_url="amqp://localhost", broker_transport_options=transport, task_queues=queues)


LIMITS = {"soft_time_limit": 10, "time_limit": 20}
PATIENT = {"x-consumer-timeout": 3_600_000}


def signed(days: int) -> dict[str, str]:
    """Return the settings of signed messages, whose certificate is valid for so long."""
    paths = certificates.make(Path(tempfile.mkdtemp()), days)
    return dict(zip(certificates.SETTINGS, map(str, paths), strict=True))


# Each with what is wrong and a word of its message.
WRONG: list[tuple[str, Setup, str]] = [
    ("E001", conf(task_soft_time_limit=1800), "all tasks: soft limit 1800, hard limit 1800"),
    ("E001", conf(task_soft_time_limit=None), "all tasks"),
    ("E001", task(soft_time_limit=20, time_limit=10), "sample"),
    ("E001", task(time_limit=10), "sample: soft limit None"),
    ("E002", conf(task_time_limit=3600), "all tasks"),
    ("E002", conf(task_time_limit=None, task_soft_time_limit=None), "all tasks: hard limit None"),
    ("E002", options(visibility_timeout=60), "visibility timeout 60"),
    ("E002", task(soft_time_limit=10, time_limit=3600), "sample"),
    ("E002", rabbitmq({}), "hard limit 1800, consumer timeout 1800"),
    ("E003", conf(task_reject_on_worker_lost=True, task_retry_on_worker_lost=False), "all tasks"),
    ("E003", task(**LIMITS, reject_on_worker_lost=True, retry_on_worker_lost=False), "sample"),
    ("E003", task(**LIMITS, retry_on_worker_lost=True, max_retries=None), "sample"),
    ("E003", task(**LIMITS | {"acks_late": False}, retry_on_worker_lost=True, max_retries=None), "sample"),
    ("E004", conf(task_acks_on_timeout=False), "all tasks"),
    ("E004", conf(task_acks_on_failure_or_timeout=False), "all tasks"),
    ("E004", task(**LIMITS, acks_on_timeout=False), "sample"),
    ("E005", options(socket_timeout=None), "no socket_timeout"),
    ("E005", options(socket_connect_timeout=None), "no socket_connect_timeout"),
    ("E005", rabbitmq(PATIENT, read_timeout=0), "no read_timeout"),
    ("E005", rabbitmq(PATIENT, write_timeout=0), "no write_timeout"),
    ("E006", conf(accept_content=["json", "pickle"]), "accept_content"),
    ("E006", conf(result_accept_content=["application/x-python-serialize"]), "result_accept_content"),
    ("E006", conf(task_serializer="pickle"), "task_serializer"),
    ("E006", conf(result_serializer="pickle"), "result_serializer"),
    ("E007", Setup(eviction_policy="allkeys-lru"), "allkeys-lru"),
    ("E008", entry(task="myproject.tasks.ad"), "myproject.tasks.ad"),
    ("E009", conf(task_routes={"orders.tasks.proces_order": {"queue": "orders"}}), "proces_order"),
    ("E009", conf(task_routes=[{"*.tasks.sent_*": "mail"}]), "sent_"),
    ("E010", conf(task_routes={"*.tasks.*": {"queue": "mial"}}), "mial"),
    ("E010", conf(task_routes={"*.tasks.*": "mial"}), "mial"),
    ("E010", conf(task_routes={"*.tasks.*": {"queue": Queue("mial")}}), "mial"),
    ("E010", conf(task_default_queue="celery"), "task_default_queue"),
    ("E010", entry(queue="mial"), "A schedule"),
    ("E011", conf(task_always_eager=True), "task_always_eager"),
    ("E012", database(CONN_MAX_AGE=600), "default"),
    ("E013", conf(security_key="key.pem"), "not set"),
    ("W001", conf(task_create_missing_queues=True), "task_create_missing_queues"),
    ("W002", replace(SHOP, names=["task_signing"]), "CELERY_TASK_SIGNING"),
    ("E014", Setup(in_worker=True, unlimited_pool="threads"), "threads"),
    ("E015", conf(task_default_rate_limit="1/m"), "task_default_rate_limit"),
    ("E015", Setup(tasks={"celery.slow": SimpleNamespace(rate_limit="1/m")}), "celery.slow"),
    ("W003", replace(database(OPTIONS={"pool": True}), in_worker=True), "default"),
    ("W004", Setup(unanswered=["The broker does not answer: refused"]), "refused"),
    ("W005", conf(**signed(days=5)), "ends on"),
    ("W006", conf(cache_backend="django-cache"), "'django-cache'"),
    ("W008", conf(task_retry_on_worker_lost=None), "all tasks: acks_late"),
    ("W008", task(**LIMITS, retry_on_worker_lost=None), "sample: acks_late"),
    ("W007", conf(beat_schedule={"Sum": {}}), "'Sum'"),
]

RIGHT: dict[str, Setup] = {
    "no limit where the message is acknowledged first": conf(
        task_acks_late=False, task_time_limit=None, task_soft_time_limit=None
    ),
    "no limit where no message comes back by itself": conf(
        broker_url="sqs://", broker_transport_options={}, task_time_limit=None, task_soft_time_limit=None
    ),
    "RabbitMQ without what is Redis' own": rabbitmq(PATIENT),
    "a pool in the web": database(OPTIONS={"pool": True}),
    "a new connection for each task": replace(database(), conf=ChainMap({"db_reuse_max": None}, app.conf)),
    "signed messages": conf(accept_content=["auth"], task_serializer="auth"),
    "a route that is a function": conf(task_routes=[lambda name, *args, **kwargs: None]),
    "queues as a mapping": conf(task_queues={name: {} for name in ("default", "orders", "mail", "bulk", "reports")}),
    "a worker loss that ends": task(**LIMITS, reject_on_worker_lost=True, retry_on_worker_lost=True, max_retries=3),
    "results in an address": conf(cache_backend="memory://"),
    "schedules of the settings alone": replace(conf(beat_schedule={"Sum": {}}), schedules_in_database=False),
    "nothing at all": Setup(),
}


def ids(messages: Collection[CheckMessage]) -> list[str]:
    return [str(message.id).removeprefix("celery.") for message in messages]


@pytest.mark.parametrize(("number", "setup", "word"), WRONG)
def test_check_finds_the_trap_and_no_other(number: str, setup: Setup, word: str) -> None:
    (message,) = checks.found(setup)

    assert ids([message]) == [number]
    assert word in message.msg
    assert message.is_serious() == number.startswith("E")
    assert message.hint


@pytest.mark.parametrize("setup", RIGHT.values(), ids=RIGHT.keys())
def test_check_says_nothing_about_what_is_right(setup: Setup) -> None:
    assert checks.found(setup) == []


def test_each_trap_is_sprung_here() -> None:
    sprung = {f"celery.{number}" for number, _, _ in WRONG}

    assert sprung == {trap.id for trap in TRAPS}
    assert len(TRAPS) == len(sprung)


def test_shop_is_clean_and_needs_no_server_to_say_so() -> None:
    # Nothing here may use the database: pytest-django would fail the test.
    assert run_checks(tags=["celery"], include_deployment_checks=True) == []


@pytest.mark.django_db
def test_shop_is_clean_when_its_servers_are_asked(broker: Broker) -> None:
    call_command("sync_schedules")

    assert run_checks(tags=["celery"], include_deployment_checks=True, databases=["default"]) == []


def test_check_reads_the_schedules_of_the_settings() -> None:
    schedule = {"Sum": {"task": "myproject.tasks.ad", "schedule": 60, "options": {"queue": "mial"}}}

    entries = checks.beat_entries({"beat_schedule": schedule})

    assert ids(checks.found(replace(SHOP, entries=entries))) == ["E008", "E010"]


@pytest.mark.django_db
def test_check_reads_the_enabled_schedules_of_the_database() -> None:
    interval = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.DAYS)
    PeriodicTask.objects.create(name="Wrong", task="myproject.tasks.ad", queue="mial", interval=interval)
    PeriodicTask.objects.create(name="Off", task="myproject.tasks.ad", enabled=False, interval=interval)

    messages = run_checks(tags=["celery"], databases=["default"])

    assert ids(messages) == ["E008", "E010"]
    assert "'Wrong' in the database" in messages[0].msg
    assert run_checks(tags=["celery"]) == []


@pytest.mark.django_db
def test_check_of_a_new_database_finds_no_schedules() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE django_celery_beat_periodictask CASCADE")

    assert run_checks(tags=["celery"], databases=["default"]) == []


@pytest.fixture
def forgetful_broker(broker: Broker) -> Iterator[None]:
    """The broker with a memory policy that throws messages away."""
    with app.connection_for_write() as link:
        redis = link.default_channel.client
        redis.config_set("maxmemory-policy", "allkeys-lru")
        yield
        redis.config_set("maxmemory-policy", "noeviction")


@pytest.mark.django_db
@pytest.mark.usefixtures("forgetful_broker")
def test_check_asks_the_broker_with_deploy_and_database_only() -> None:
    asked = run_checks(tags=["celery"], include_deployment_checks=True, databases=["default"])

    assert ids(asked) == ["E007"]
    assert run_checks(tags=["celery"], include_deployment_checks=True) == []
    assert run_checks(tags=["celery"], databases=["default"]) == []


def test_check_only_warns_when_the_broker_may_not_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise NoPermissionError("this user has no permissions to run the 'info' command")

    monkeypatch.setattr(checks, "eviction_policy", refuse)

    assert ids(checks.check_broker(databases=["default"])) == ["W004"]


def said(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the shop to its end, with other environment variables."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=settings.BASE_DIR,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


CHECK_ALL = ("manage.py", "check", "--tag", "celery", "--deploy", "--database", "default")


def test_check_only_warns_when_the_broker_does_not_answer(db: None) -> None:
    ours = embedded.database_url(settings.VAR_DIR, connection.settings_dict["NAME"])

    done = said(*CHECK_ALL, DATABASE_URL=ours, CELERY_BROKER_URL=NOWHERE)

    assert done.returncode == 0
    assert "The broker does not answer: " in done.stderr
    assert done.stderr.count("celery.W004") == 1


def test_check_says_one_line_when_the_database_does_not_answer() -> None:
    done = said(*CHECK_ALL, DATABASE_URL="postgres://127.0.0.1:1/shop")

    assert done.returncode == 1
    assert done.stderr.startswith("The database does not answer (")
    assert done.stderr.count("\n") == 1


def test_worker_does_not_start_with_an_error() -> None:
    done = said("-m", "celery", "-A", "myproject", "worker", ORDER_LEASE_SECONDS="4000", DATABASE_POOL="true")

    assert done.returncode == 1
    assert "(celery.E002) orders.tasks.process_order" in done.stderr
    assert "(celery.W003) The database 'default' has a pool" in done.stderr


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_worker_does_not_start_with_a_pool_that_ends_no_task_at_its_limit(pool: str) -> None:
    done = said("-m", "celery", "-A", "myproject", "worker", "--pool", pool)

    assert done.returncode == 1
    assert f"(celery.E014) The worker's pool is {pool[:6].rstrip('s')}" in done.stderr
