"""Messages outlive a release: those of the one before meet today's workers, today's meet those of the one before."""

import inspect
import re
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Task
from django.db import connection
from django.db.models import Model
from django.utils import timezone
from kombu import Producer

from accounts.models import AccountMail, User
from myproject.alerting.models import Alert
from myproject.celery import app
from orders import tasks
from orders.models import Order, Status
from reports.models import Status as ReportStatus
from tests import releases
from tests.broker import Broker
from tests.factories import end_lease, make_mail, make_report, make_user, place_order
from tests.running import LOG, sandbox, worker
from tests.shop import wait_for

pytestmark = pytest.mark.operations

pytest_plugins = ["tests.broker", "tests.running"]

app.loader.import_default_modules()
OURS: dict[str, Task] = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}
ADVICE = (
    "Workers of this release still get what the one before has queued. Give a new argument a default; rename or remove"
    " one in two releases: see docs/operations/deploys.md. When a release is out, record what it sends:"
    " python -m tests.releases"
)


# --- Signatures ---


def incompatible(messages: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Say for each message that today's tasks do not take why not."""
    found = {}
    for name, message in messages.items():
        args, kwargs, _ = message["body"]
        try:
            inspect.signature(OURS[name].run).bind(*args, **kwargs)
        except KeyError:
            found[name] = "there is no such task"
        except TypeError as error:
            found[name] = str(error)
    return found


def test_tasks_take_what_the_release_before_sends() -> None:
    assert not (found := incompatible(releases.messages())), f"{found}. {ADVICE}"


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [({}, "missing a required argument: 'order_id'"), ({"order_id": 1, "pk": 1}, "got an unexpected keyword argument")],
    ids=["a new required argument", "an argument that vanished"],
)
def test_incompatible_signature_is_found(kwargs: dict[str, Any], reason: str) -> None:
    [found] = incompatible({"orders.tasks.process_order": {"body": [[], kwargs, {}]}}).values()

    assert reason in found


def test_task_that_was_removed_at_once_is_found() -> None:
    assert incompatible({"orders.tasks.pack_order": {"body": [[], {}, {}]}}) == {
        "orders.tasks.pack_order": "there is no such task"
    }


# --- Real messages, a real worker ---


def publish(task: str, message: dict[str, Any], queue: str = "") -> str:
    """Put the message into its queue as another release has put it there; return the id that it has now."""
    task_id = str(uuid4())
    headers = message["headers"] | {"id": task_id, "root_id": task_id, "task": task}
    with app.connection_for_write() as broker:
        Producer(broker.default_channel).publish(
            message["body"],
            routing_key=queue or app.amqp.router.route({}, task)["queue"].name,
            headers=headers,
            correlation_id=task_id,
            serializer="json",
        )
    return task_id


def outcome(task_id: str) -> str:
    """Return what the worker's log says became of the task; empty as long as it has not ended."""
    ended = re.search(rf"(task_succeeded|task_retrying|task_failed|gave up)[^\n]*{task_id}[^\n]*", LOG.read_text())
    return ended[0] if ended else ""


def next_is_recorded(*models: type[Model]) -> None:
    """Give the next row of each model the key that the recorded messages name."""
    with connection.cursor() as cursor:
        for model in models:
            sequence = f"pg_get_serial_sequence('{model._meta.db_table}', 'id')"
            cursor.execute(f"SELECT setval({sequence}, %s, false)", [releases.PK])


@pytest.mark.django_db(transaction=True)
def test_worker_takes_each_message_of_the_release_before(queue: Broker) -> None:
    next_is_recorded(User, Order, AccountMail)
    person, mail, report = make_user(mail_due_at=timezone.now()), make_mail(), make_report(pk=UUID(releases.UUID))
    order = place_order(customer=person)

    with sandbox() as places, worker(**places):
        ids = {name: publish(name, message) for name, message in releases.messages().items()}
        outcomes = {name: wait_for(partial(outcome, task_id), f"{name} to end") for name, task_id in ids.items()}

    assert not {name: said for name, said in outcomes.items() if "TypeError" in said or "NotRegistered" in said}
    for row in (person, mail, report, order):
        row.refresh_from_db()
    assert (order.status, report.status) == (Status.COMPLETED, ReportStatus.READY)
    assert person.mail_sent_at is not None
    assert mail.mail_sent_at is not None


@pytest.mark.django_db(transaction=True)
def test_message_of_a_newer_release_costs_time_and_an_alert_and_no_work(queue: Broker) -> None:
    order = place_order()
    newer = releases.messages()["orders.tasks.process_order"]
    newer["body"][1] = {"order_id": order.pk}

    with sandbox() as places, worker(**places):
        publish("orders.tasks.wrap_order", newer, queue="orders")
        newer["body"][1] |= {"gift": True}
        publish("orders.tasks.process_order", newer)
        wait_for(lambda: Alert.objects.count() == 2, "both alerts")
        before = Order.objects.get(pk=order.pk).status
        end_lease(order)
        tasks.check_pending_orders.delay()
        wait_for(lambda: Order.objects.filter(pk=order.pk, status=Status.COMPLETED).exists(), "the sweep")

    assert before == Status.PENDING
    assert set(Alert.objects.values_list("subject", flat=True)) == {
        "A message was refused",
        "orders.tasks.process_order gave up",
    }
