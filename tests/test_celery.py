"""How tasks reach their queue, and what happens to them on the way."""

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Task
from django.conf import settings
from django.db import transaction
from django.db.utils import OperationalError
from kombu import Producer
from kombu.exceptions import ContentDisallowed

import myproject
from durable.errors import PermanentError, TemporaryError
from durable.schedules import declared
from myproject.celery import app
from myproject.tasks import add, multiply
from orders.tasks import (
    check_pending_orders,
    import_products,
    process_order,
    send_digest_emails,
    send_order_confirmation,
    sync_inventory,
)
from reports.tasks import check_unfinished_reports, generate_report
from tests.broker import QUEUES, Broker

pytest_plugins = ["tests.broker"]

app.loader.import_default_modules()
OURS: dict[str, Task] = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}
NOWHERE = "redis://127.0.0.1:1/0"


# --- Wiring ---


def test_package_exposes_the_app() -> None:
    assert myproject.celery_app is app
    assert app.main == "myproject"


def test_app_finds_the_tasks_of_each_installed_app() -> None:
    assert {name.split(".")[0] for name in OURS} == {"accounts", "myproject", "orders", "reports"}


def test_shared_task_binds_to_our_app_and_base() -> None:
    assert process_order.app is app
    assert isinstance(process_order, myproject.celery.Task)
    # It names no base class of its own.
    assert isinstance(add, myproject.celery.Task)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("task_acks_late", True),
        ("task_reject_on_worker_lost", None),
        ("task_retry_on_worker_lost", True),
        ("worker_prefetch_multiplier", 1),
        ("accept_content", ["json"]),
        ("task_serializer", "json"),
        ("result_backend", "django-db"),
        ("beat_scheduler", "myproject.monitoring.beat:Scheduler"),
        ("task_create_missing_queues", False),
        ("timezone", settings.TIME_ZONE),
    ],
)
def test_app_reads_the_settings(setting: str, value: object) -> None:
    assert app.conf[setting] == value


@pytest.mark.parametrize("name", sorted(OURS))
def test_task_limits_are_in_order(name: str) -> None:
    task = OURS[name]

    soft = task.soft_time_limit or app.conf.task_soft_time_limit
    hard = task.time_limit or app.conf.task_time_limit

    assert soft < hard < app.conf.broker_transport_options["visibility_timeout"]


def test_order_lease_is_the_hard_limit_of_its_task() -> None:
    assert process_order.time_limit == settings.ORDER_LEASE.total_seconds()
    assert generate_report.time_limit == settings.REPORT_LIMIT.total_seconds()


@pytest.mark.parametrize("name", sorted(declared()))
def test_schedule_names_a_registered_task_and_expires(name: str) -> None:
    schedule = declared()[name]

    assert schedule.task in OURS
    assert schedule.expires


def test_add_and_multiply_do_sums() -> None:
    assert (add(2, 3), multiply(2, 3)) == (5, 6)


# --- Queues ---


@pytest.mark.parametrize("name", sorted(OURS))
def test_task_has_one_of_the_declared_queues(name: str) -> None:
    queue = app.amqp.router.route({}, name)["queue"].name

    assert queue in {queue.name for queue in settings.CELERY_TASK_QUEUES}


def test_no_sweep_stands_behind_what_takes_long() -> None:
    sweeps = {name for name in OURS if ".check_" in name}

    queues = {name: app.amqp.router.route({}, name)["queue"].name for name in sweeps}

    # Digests have their queue to themselves, and theirs is part of it.
    assert queues == dict.fromkeys(sweeps, "orders") | {"orders.tasks.check_unsent_digests": "bulk"}


@pytest.mark.parametrize(
    ("task", "kwargs", "queue"),
    [
        (add, {"x": 1, "y": 2}, "default"),
        (process_order, {"order_id": 1}, "orders"),
        (check_pending_orders, {}, "orders"),
        (send_order_confirmation, {"order_id": 1}, "mail"),
        (send_digest_emails, {"week": "2026-11-23"}, "bulk"),
        (sync_inventory, {}, "default"),
        (generate_report, {"report_id": "1"}, "reports"),
        (import_products, {"import_id": "1"}, "reports"),
        (check_unfinished_reports, {}, "orders"),
    ],
)
def test_message_goes_to_exactly_one_queue(task: Task, kwargs: dict[str, Any], queue: str, broker: Broker) -> None:
    task.delay(**kwargs)

    assert broker.lengths() == dict.fromkeys(QUEUES, 0) | {queue: 1}


def test_publish_fails_when_the_queue_is_mistyped(broker: Broker) -> None:
    with pytest.raises(Exception, match="ordres"):
        add.apply_async((1, 2), queue="ordres")

    assert sum(broker.lengths().values()) == 0


def test_message_with_pickle_is_refused(broker: Broker) -> None:
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        queue = app.amqp.queues["default"].bind(channel)
        consumer = app.amqp.TaskConsumer(channel, queues=[queue])
        Producer(channel).publish({}, routing_key="default", serializer="pickle", exchange=queue.exchange)
        message = queue.get(accept=consumer.accept)

        with pytest.raises(ContentDisallowed):
            message.decode()


# --- After the commit ---


@pytest.mark.django_db(transaction=True)
def test_delay_on_commit_publishes_after_the_commit_only(broker: Broker) -> None:
    with transaction.atomic():
        add.delay_on_commit(1, 2)
        before = broker.lengths()["default"]

    assert (before, broker.lengths()["default"]) == (0, 1)


@pytest.mark.django_db(transaction=True)
def test_delay_on_commit_publishes_nothing_when_rolled_back(broker: Broker) -> None:
    with transaction.atomic():
        add.delay_on_commit(1, 2)
        transaction.set_rollback(True)

    assert broker.lengths()["default"] == 0


@pytest.mark.django_db(transaction=True)
def test_delay_on_commit_publishes_at_once_when_there_is_no_transaction(broker: Broker) -> None:
    process_order.delay_on_commit(order_id=7)

    assert broker.messages() == [("orders", "orders.tasks.process_order", {"order_id": 7})]


@pytest.mark.django_db(transaction=True)
def test_delay_on_commit_only_warns_when_the_broker_is_away(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.use(NOWHERE)

    with transaction.atomic():
        add.delay_on_commit(1, 2)

    assert [record.levelno for record in caplog.records if record.name == "durable.task"] == [logging.WARNING]
    assert "myproject.tasks.add was not queued, the broker does not answer" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_delay_on_commit_stops_nothing_when_the_message_cannot_be_made() -> None:
    done: list[str] = []

    with transaction.atomic():
        # An argument is missing: Celery refuses it at the commit, which can no longer fail.
        add.delay_on_commit(1)
        transaction.on_commit(lambda: done.append("the next hook"))

    assert done == ["the next hook"]


@pytest.mark.django_db(transaction=True)
def test_apply_async_on_commit_passes_its_options_on(broker: Broker) -> None:
    add.apply_async_on_commit((1, 2), queue="mail")

    assert broker.lengths()["mail"] == 1


# --- Retries and failure ---


ERRORS: dict[str, Exception] = {
    "temporary": TemporaryError("later"),
    "database": OperationalError("gone"),
    "permanent": PermanentError("never"),
    "asked to wait": TemporaryError("busy", retry_after=77),
    "asked to wait for days": TemporaryError("busy", retry_after=200_000),
}


@pytest.fixture
def fail() -> Iterator[Task]:
    """A task that fails with the error of that name."""

    @app.task(name="tests.fail", lazy=False)
    def fail(error: str) -> None:
        raise ERRORS[error]

    yield fail
    app.tasks.unregister(fail.name)


@pytest.fixture
def retries(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    caplog.set_level(logging.INFO, "celery.app.trace")
    return lambda: sum("retry:" in record.getMessage() for record in caplog.records)


@pytest.mark.django_db
@pytest.mark.parametrize(("error", "times"), [("temporary", 5), ("database", 5), ("permanent", 0)])
def test_task_is_tried_again_when_the_error_is_temporary(
    error: str, times: int, fail: Task, retries: Callable[[], int]
) -> None:
    result = fail.apply((error,))

    assert result.state == "FAILURE"
    assert retries() == times


@pytest.mark.django_db
@pytest.mark.parametrize(("error", "seconds"), [("asked to wait", 77), ("asked to wait for days", 600)])
def test_task_waits_as_long_as_it_was_asked_to_and_never_more_than_ten_minutes(
    error: str, seconds: int, fail: Task, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "celery.app.trace")

    fail.apply((error,), retries=0)

    assert f"retry: Retry in {seconds}s" in caplog.text


@pytest.mark.django_db
def test_task_is_never_tried_again_at_once(
    fail: Task, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "celery.app.trace")
    # The least that jitter can choose.
    monkeypatch.setattr("celery.utils.time.random.randrange", lambda end: 0)

    fail.apply(("temporary",))

    assert re.findall(r"retry: Retry in (\d+)s", caplog.text) == ["1"] * 5


@pytest.mark.django_db
def test_task_that_failed_for_good_says_so_with_its_reference(fail: Task, caplog: pytest.LogCaptureFixture) -> None:
    fail.apply(kwargs={"error": "permanent"}, task_id="task-1")

    said = "tests.fail gave up, {'error': 'permanent'}, task task-1: PermanentError('never')"
    assert [record.getMessage() for record in caplog.records].count(said) == 1


def test_retries_wait_longer_each_time_and_never_more_than_ten_minutes() -> None:
    task: Any = process_order

    assert (task.retry_backoff, task.retry_backoff_max, task.retry_jitter) == (True, 600, True)
    assert task.max_retries == 5
