"""How the shop calls a person: once for each cause, and never in the way of the work."""

import logging
import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import psutil
import pytest
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from django.db import DatabaseError, connection
from django.utils import timezone

from durable.errors import TemporaryError
from myproject import tasks
from myproject.alerting.alerts import alert, note_failure
from myproject.alerting.models import Alert, AlertQuerySet
from myproject.settings import ALERT_COOL_DOWN
from orders.models import Order
from orders.tasks import process_order
from tests.broker import Broker
from tests.factories import claim, make_alert, place_order
from tests.sandbox.conftest import Sandbox
from tests.shop import METRICS_PORTS, Shop, strike, wait_for
from tests.test_metrics import read, value

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db
SECRET = "T0KEN"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("chat")) as sandbox:
        yield sandbox


@pytest.fixture
def chat(room: Sandbox, settings: Any) -> Sandbox:
    """The sandbox's chat, with all faults off, as the one place where alerts go."""
    room.ask("/controls", method="DELETE")
    settings.ALERT_URLS = [f"json://127.0.0.1:{room.port}/chat?-token={SECRET}"]
    return room


def told(sandbox: Any, subject: str) -> list[str]:
    messages = sandbox.ask("/chat.json")
    return [row["message"].splitlines()[0] for row in messages if row["title"].endswith(subject)][::-1]


def send(row: Alert, task_id: str | None = None) -> Any:
    return tasks.send_alert.apply(kwargs={"alert_id": row.pk}, task_id=task_id)


def let_time_pass(row: Alert) -> None:
    """Put all that the row knows of the clock into the past, by more than the cool-down."""
    Alert.objects.filter(pk=row.pk).update(sent_at=timezone.now() - 2 * ALERT_COOL_DOWN, due_at=None)


@pytest.fixture
def cause() -> str:
    return f"Lamp {uuid4()} is out"


# --- Recording ---


def test_alert_is_one_row_and_one_message_however_often_it_happens(broker: Broker, cause: str) -> None:
    with patch("django.db.transaction.on_commit", lambda publish, robust: publish()):
        for _ in range(3):
            alert(cause, "The red one.")
            Alert.objects.filter(cause=cause, claimed_by="").update(due_at=timezone.now() + Alert.lease.lasts())

    row = Alert.objects.get(cause=cause)
    assert (row.count, row.told_count) == (3, 0)
    assert broker.messages() == [("mail", "myproject.tasks.send_alert", {"alert_id": row.pk})]


def test_alert_again_within_the_cool_down_is_due_when_that_ends(chat: Sandbox) -> None:
    row = make_alert()
    send(row)

    again = make_alert()

    sent_at = Alert.objects.get().sent_at
    assert sent_at is not None
    assert (again.pk, again.count, again.due_at) == (row.pk, 2, sent_at + ALERT_COOL_DOWN)
    assert not again.is_due


def test_alert_again_after_the_cool_down_is_due_now(chat: Sandbox) -> None:
    row = make_alert()
    send(row)
    let_time_pass(row)

    assert make_alert().is_due


def test_alert_is_only_listed_when_there_is_no_address(settings: Any) -> None:
    settings.ALERT_URLS = []

    rows = [make_alert(), make_alert()]
    send(rows[-1])

    rows[-1].refresh_from_db()
    assert [row.count for row in rows] == [1, 2]
    assert (rows[-1].due_at, rows[-1].told_count) == (None, 0)


def test_alert_goes_on_when_the_database_does_not_take_it(cause: str, caplog: pytest.LogCaptureFixture) -> None:
    with patch.object(AlertQuerySet, "record", side_effect=DatabaseError("gone")):
        alert(cause, "The red one.")

    assert f"{cause}: The red one." in caplog.text
    assert "was not stored" in caplog.text


def test_alert_leaves_the_transaction_around_it_whole_when_its_own_statement_fails(cause: str) -> None:
    with patch("myproject.alerting.models.RECORD", "SELECT 1/0 AS id"):
        alert(cause, "The red one.")

    assert Alert.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_alert_waits_for_the_sweep_when_the_broker_is_away(broker: Broker, cause: str) -> None:
    broker.use("redis://127.0.0.1:1")
    alert(cause, "The red one.")
    broker.use(broker.url)

    tasks.check_unsent_alerts()

    row = Alert.objects.get(cause=cause)
    assert broker.messages() == [("mail", "myproject.tasks.send_alert", {"alert_id": row.pk})]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Mail to alice@example.com bounced", "Mail to … bounced"),
        ("postgres://shop:secret@db:5432/shop is away", "postgres://…@db:5432/shop is away"),
        ("Order K7QM-2XWD: 2 @ 12.50", "Order K7QM-2XWD: 2 @ 12.50"),
    ],
)
def test_alert_keeps_people_and_passwords_to_itself(written: str, kept: str, cause: str) -> None:
    alert(cause, written)

    assert Alert.objects.get(cause=cause).message == kept


# --- Telling ---


def test_send_alert_tells_the_chat_and_records_it(chat: Sandbox, cause: str) -> None:
    row = make_alert(cause=cause, subject=cause)

    send(row).get()

    row.refresh_from_db()
    assert told(chat, cause) == ["The red one."]
    assert (row.due_at, row.told_count, row.claimed_by) == (None, 1, "")
    assert row.sent_at is not None


@pytest.mark.proves("myproject.tasks.send_alert", "twice", page="admin:myproject_alert_changelist")
def test_send_alert_twice_is_once(chat: Sandbox, cause: str) -> None:
    row = make_alert(cause=cause, subject=cause)

    for _ in range(2):
        send(row).get()

    assert told(chat, cause) == ["The red one."]


def test_send_alert_leaves_alone_what_another_task_tells(chat: Sandbox, cause: str) -> None:
    row = make_alert(cause=cause, subject=cause)
    claim(row, "another-task")

    send(row).get()

    assert told(chat, cause) == []


def test_send_alert_says_once_how_often_it_happened_meanwhile(chat: Sandbox, cause: str) -> None:
    row = make_alert(cause=cause, subject=cause)
    send(row)
    for _ in range(3):
        make_alert(cause=cause, subject=cause)
    Alert.objects.filter(pk=row.pk).update(due_at=timezone.now())

    for _ in range(2):
        send(row).get()

    first, second = told(chat, cause)
    assert first == "The red one."
    assert second.startswith("The red one. It happened 3 more times since ")


def test_send_alert_owes_another_message_for_what_happens_while_it_tells(chat: Sandbox, cause: str) -> None:
    row = make_alert(cause=cause, subject=cause)
    row = claim(row, "busy")
    make_alert(cause=cause, subject=cause)

    row.mark_sent()

    row.refresh_from_db()
    assert (row.count, row.told_count) == (2, 1)
    assert row.due_at is not None
    assert row.due_at > timezone.now()


def test_worker_that_has_told_of_an_alert_holds_it_no_more() -> None:
    held = claim(make_alert())
    make_alert()

    told = [held.mark_sent(), held.mark_sent()]

    row = Alert.objects.get()
    assert told == [True, False]
    assert (row.count, row.told_count, row.claimed_by) == (2, 1, "")
    assert row.due_at is not None


def test_send_alert_tries_again_when_the_chat_fails(chat: Sandbox, cause: str) -> None:
    chat.switch_on("chat_error", count=2)
    row = make_alert(cause=cause, subject=cause)

    send(row).get()

    row.refresh_from_db()
    assert told(chat, cause) == ["The red one."]
    assert (row.due_at, row.error) == (None, "")


def test_send_alert_gives_up_for_now_without_alerting_of_itself(chat: Sandbox, cause: str) -> None:
    chat.switch_on("chat_error", count=100)
    row = make_alert(cause=cause, subject=cause)

    result = send(row)

    row.refresh_from_db()
    assert isinstance(result.result, TemporaryError)
    assert list(Alert.objects.all()) == [row]
    assert (row.sent_at, row.error) == (None, "No answer from address 1 (JSON).")
    assert row.due_at is not None
    assert row.due_at > timezone.now() + Alert.lease.lasts() - timedelta(minutes=1)


def test_send_alert_tells_the_others_once_when_one_address_is_dead(chat: Sandbox, cause: str, settings: Any) -> None:
    settings.ALERT_URLS = ["json://127.0.0.1:1/dead", *settings.ALERT_URLS]
    row = make_alert(cause=cause, subject=cause)

    send(row)

    row.refresh_from_db()
    assert told(chat, cause) == ["The red one."]
    assert (row.due_at, row.told_count, row.error) == (None, 1, "No answer from address 1 (JSON).")


def test_send_alert_ends_with_a_reason_when_an_address_is_nonsense(chat: Sandbox, settings: Any) -> None:
    settings.ALERT_URLS = [*settings.ALERT_URLS, f"nonsense://{SECRET}"]
    row = make_alert()

    send(row).get()

    row.refresh_from_db()
    assert (row.due_at, row.error) == (None, "ALERT_URLS: address 2 is none that apprise understands.")


@pytest.mark.parametrize("urls", [["nonsense://{}"], ["json://127.0.0.1:1/{}"], ["slack://{}/B/C"]])
def test_addresses_are_never_logged(urls: list[str], settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.ALERT_URLS = [url.format(SECRET) for url in urls]
    row = make_alert()

    with caplog.at_level(logging.INFO):
        send(row)

    row.refresh_from_db()
    assert caplog.text != ""
    assert SECRET not in caplog.text + row.error


@pytest.mark.proves("myproject.tasks.check_unsent_alerts", "twice")
def test_check_unsent_alerts_queues_what_is_due(broker: Broker) -> None:
    due, later = make_alert(), make_alert(cause="Later")
    Alert.objects.filter(pk=later.pk).update(due_at=timezone.now() + Alert.lease.lasts())

    for _ in range(2):
        tasks.check_unsent_alerts()

    assert broker.messages() == [("mail", "myproject.tasks.send_alert", {"alert_id": due.pk})] * 2


# --- Tasks that give up ---


def test_task_that_gives_up_is_one_alert_without_its_arguments() -> None:
    for _ in range(2):
        tasks.add.apply(args=(SECRET, None))

    row = Alert.objects.get()
    assert (row.cause, row.subject, row.count) == ("myproject.tasks.add TypeError", "myproject.tasks.add gave up", 2)
    assert SECRET not in row.message


def test_alert_of_a_failure_has_no_word_of_its_error() -> None:
    note_failure(tasks.heartbeat, ValueError("Ada Lovelace of Bakers Street is unknown"), "t-1")

    row = Alert.objects.get()
    assert row.cause == "myproject.tasks.heartbeat ValueError"
    assert "Lovelace" not in row.message


def test_task_that_is_tried_again_is_no_alert_until_it_gives_up() -> None:
    with patch("myproject.monitoring.tasks.timezone.now", side_effect=[TemporaryError("away"), timezone.now()]):
        tasks.heartbeat.apply()

    assert Alert.objects.count() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [WorkerLostError("died"), TimeLimitExceeded(30)])
def test_failure_found_by_the_main_process_leaves_no_connection_behind(error: Exception) -> None:
    note_failure(tasks.heartbeat, error, "t-1")

    assert connection.connection is None
    assert Alert.objects.get().cause == f"myproject.tasks.heartbeat {type(error).__name__}"


# --- Real processes ---


def in_chat(shop: Shop, subject: str) -> list[str]:
    return [row["message"] for row in shop.sandbox("/chat.json") if row["title"].endswith(subject)]


@pytest.fixture
def empty_chat(shop: Shop) -> None:
    shop.sandbox("/controls", {"reset": "all"})


@pytest.mark.proves("myproject.tasks.send_alert", "worker")
@pytest.mark.django_db(transaction=True)
def test_worker_tells_the_chat_of_a_task_that_gives_up_once(shop: Shop, empty_chat: None) -> None:
    before = len(in_chat(shop, "myproject.tasks.add gave up"))

    for _ in range(3):
        tasks.add.delay("one", 2)

    wait_for(lambda: Alert.objects.filter(cause__contains="tasks.add", count=3, told_count__gte=1).first(), "the alert")
    assert len(in_chat(shop, "myproject.tasks.add gave up")) == before + 1


@pytest.mark.proves("myproject.tasks.check_unsent_alerts", "worker")
@pytest.mark.django_db(transaction=True)
def test_worker_sends_alerts_whose_message_was_lost(shop: Shop, cause: str) -> None:
    make_alert(cause=cause, subject=cause)

    wait_for(lambda: in_chat(shop, cause), "the message")


@pytest.mark.django_db(transaction=True)
def test_worker_tells_once_the_chat_answers_again(shop: Shop, cause: str) -> None:
    shop.sandbox("/controls", {"fault": "chat_error", "count": 2})
    alert(cause, "The red one.")

    wait_for(lambda: Alert.objects.filter(cause=cause, due_at=None).first(), "the message")

    assert len(in_chat(shop, cause)) == 1


@pytest.fixture
def slow_charge(shop: Shop) -> Iterator[Order]:
    """An order whose charge is not answered."""
    shop.sandbox("/controls", {"fault": "latency", "count": 1, "seconds": 20})
    yield place_order()
    shop.sandbox("/controls", {"reset": "all"})


@pytest.mark.django_db(transaction=True)
def test_worker_alerts_once_of_a_hard_limit_and_counts_it_once(shop: Shop, slow_charge: Order) -> None:
    sent = process_order.apply_async(kwargs={"order_id": slow_charge.pk})
    failed, port = {"task": process_order.name, "outcome": "failed"}, METRICS_PORTS["worker"]
    before = value(read(port), "shop_tasks_total", **failed)

    # Frozen, it cannot answer its soft limit.
    pid = strike(sent.id, signal.SIGSTOP)

    cause = "orders.tasks.process_order TimeLimitExceeded"
    wait_for(Alert.objects.filter(cause=cause, due_at=None).exists, "the alert")
    # Celery reports it again when the process is gone.
    wait_for(lambda: not psutil.pid_exists(pid), "the end of the process")
    assert Alert.objects.get(cause=cause).count == 1
    assert value(read(port), "shop_tasks_total", **failed) == before + 1
    lines = [line for line in shop.log.read_text().splitlines() if sent.id in line]
    assert sum("task_failed" in line for line in lines) == 1


@pytest.mark.django_db(transaction=True)
def test_worker_alerts_once_of_a_process_that_died_once_too_often(shop: Shop, slow_charge: Order) -> None:
    sent = process_order.apply_async(kwargs={"order_id": slow_charge.pk}, retries=process_order.max_retries)

    strike(sent.id, signal.SIGKILL)

    cause = "orders.tasks.process_order WorkerLostError"
    wait_for(Alert.objects.filter(cause=cause, due_at=None).exists, "the alert")
    assert Alert.objects.get(cause=cause).count == 1
