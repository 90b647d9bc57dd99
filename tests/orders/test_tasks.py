from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.core import mail as outbox
from django.core.mail import EmailMultiAlternatives
from django.utils import timezone
from django_celery_results.models import TaskResult

from durable import mail
from durable.errors import TemporaryError
from durable.leases import SHORTEST_WAIT
from orders import emails, payments, tasks
from orders.models import Order, OrderEvent, Status
from orders.schedules import SCHEDULES
from tests.broker import Broker
from tests.factories import claim_orders, end_lease, make_product, place_order, put

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A provider that charges everything; the list is of the orders that it was asked for."""
    asked: list[str] = []

    def charge(payment: payments.Payment) -> payments.Charged:
        asked.append(payment.order.reference)
        return payments.Charged(f"pi_{payment.attempt}")

    monkeypatch.setattr(payments, "charge", charge)
    return asked


@pytest.fixture
def confirmed() -> Order:
    """A completed order whose confirmation is owed."""
    order = put(place_order(), Status.COMPLETED)
    Order.objects.filter(pk=order.pk).update(mail_due_at=timezone.now())
    return order


# --- process_order ---


def test_process_order_completes_the_order_and_queues_its_confirmation(broker: Broker, provider: list[str]) -> None:
    order = place_order()

    result = tasks.process_order.apply(kwargs={"order_id": order.pk})

    order.refresh_from_db()
    assert result.get() == {"claimed": 1, "completed": 1}
    assert order.status == Status.COMPLETED
    assert broker.messages() == [("mail", "orders.tasks.send_order_confirmation", {"order_id": order.pk})]


@pytest.mark.proves("orders.tasks.process_order", "twice", page="orders:detail")
def test_process_order_twice_is_once(broker: Broker, provider: list[str]) -> None:
    product = make_product(stock=10)
    order = place_order(product=product, quantity=3)

    for _ in range(2):
        tasks.process_order.apply(kwargs={"order_id": order.pk})

    product.refresh_from_db()
    assert (product.stock, provider) == (7, [order.reference])
    assert len(broker.messages()) == 1


def test_process_order_takes_others_along_that_wait(broker: Broker, provider: list[str]) -> None:
    orders = [place_order() for _ in range(3)]

    result = tasks.process_order.apply(kwargs={"order_id": orders[1].pk})

    assert result.get() == {"claimed": 3, "completed": 3}
    assert sorted(provider) == sorted(order.reference for order in orders)


def test_process_order_leaves_an_order_to_the_task_that_holds_it(broker: Broker, provider: list[str]) -> None:
    order = place_order()
    claim_orders(order, limit=1, task_id="another")

    result = tasks.process_order.apply(kwargs={"order_id": order.pk})

    assert (result.get(), provider) == ({"claimed": 0, "completed": 0}, [])


def test_process_order_asks_again_and_keeps_the_order_when_the_provider_is_silent(broker: Broker) -> None:
    order = place_order()

    with patch.object(payments, "charge", side_effect=TemporaryError("no answer")) as charge:
        result = tasks.process_order.apply(kwargs={"order_id": order.pk})

    order.refresh_from_db()
    assert isinstance(result.result, TemporaryError)
    assert (order.status, charge.call_count) == (Status.PROCESSING, 6)
    assert order.events.filter(kind="retry").count() == 6


def test_process_order_confirms_what_is_complete_when_another_of_the_set_is_silent(broker: Broker) -> None:
    good, silent = place_order(), place_order()

    with patch.object(
        payments, "charge_all", lambda started: [payments.Charged("pi_1"), TemporaryError("no answer")][-len(started) :]
    ):
        tasks.process_order.apply(kwargs={"order_id": good.pk})

    assert broker.messages() == [("mail", "orders.tasks.send_order_confirmation", {"order_id": good.pk})]
    assert Order.objects.get(pk=silent.pk).status == Status.PROCESSING


def test_process_order_leaves_a_result_only_when_it_found_something_to_do(
    broker: Broker, provider: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.process_order, "store_eager_result", True)
    order = place_order()

    for task_id in ("first", "late"):
        tasks.process_order.apply(kwargs={"order_id": order.pk}, task_id=task_id)

    assert TaskResult.objects.get().task_id == "first"


def test_process_order_succeeds_when_the_broker_takes_no_confirmation(broker: Broker, provider: list[str]) -> None:
    order = place_order()
    broker.use("redis://127.0.0.1:1")

    result = tasks.process_order.apply(kwargs={"order_id": order.pk})

    assert result.get() == {"claimed": 1, "completed": 1}
    assert Order.objects.mail_due().get() == order


def test_process_order_queues_one_message_for_the_confirmations_of_its_set(broker: Broker, provider: list[str]) -> None:
    orders = [place_order() for _ in range(3)]

    tasks.process_order.apply(kwargs={"order_id": orders[0].pk})

    [(_, _, kwargs)] = broker.messages()
    tasks.send_order_confirmation.apply(kwargs=kwargs).get()
    assert len(outbox.outbox) == 3


# --- Orders that share a message ---


def waiting() -> Order:
    """Return an order whose message has been on its way for a while, as where all workers are busy."""
    order = place_order()
    Order.objects.filter(pk=order.pk).update(**Order.lease.until(Order.lease.lasts() - 2 * SHORTEST_WAIT))
    return order


@pytest.fixture
def placed(broker: Broker, django_capture_on_commit_callbacks: Any) -> Callable[[Order], list[Any]]:
    """Return what queues a new order, and the messages that it sends."""

    def queue(order: Order) -> list[Any]:
        with django_capture_on_commit_callbacks(execute=True):
            tasks.queue_new_order(order)
        return broker.messages()

    return queue


def new_order() -> Order:
    """Return one that is not among those that have a message in any case."""
    order = place_order()
    if order.pk % tasks.ORDERS_PER_MESSAGE == 0:
        order.delete()
        return place_order()
    return order


def test_new_order_is_queued_where_none_waits(placed: Callable[[Order], list[Any]]) -> None:
    claimed, order = waiting(), new_order()
    claim_orders(claimed, limit=1, task_id="one")

    sent = placed(order)

    assert sent == [("orders", "orders.tasks.process_order", {"order_id": order.pk})]


def test_new_order_that_another_takes_along_is_processed_without_a_message(
    placed: Callable[[Order], list[Any]], provider: list[str]
) -> None:
    first, order = waiting(), new_order()

    sent = placed(order)
    tasks.process_order.apply(kwargs={"order_id": first.pk})

    order.refresh_from_db()
    assert (sent, order.status) == ([], Status.COMPLETED)


def test_sweep_finds_the_order_when_the_message_that_it_relied_on_is_lost(
    broker: Broker, placed: Callable[[Order], list[Any]], provider: list[str]
) -> None:
    first, order = waiting(), new_order()
    placed(order)
    end_lease(first)
    end_lease(order)

    tasks.check_pending_orders()
    for _, _, kwargs in broker.messages():
        tasks.process_order.apply(kwargs=kwargs)

    order.refresh_from_db()
    assert order.status == Status.COMPLETED


def test_process_order_queues_what_has_come_meanwhile_without_a_message(
    broker: Broker, provider: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    order, late = place_order(), list[Order]()

    def charge(payment: payments.Payment) -> payments.Charged:
        # After the claim, which therefore does not see it.
        late.append(place_order())
        return payments.Charged("pi_1")

    monkeypatch.setattr(payments, "charge", charge)

    tasks.process_order.apply(kwargs={"order_id": order.pk})

    assert ("orders", "orders.tasks.process_order", {"order_id": late[0].pk}) in broker.messages()


def test_process_order_queues_nothing_that_its_own_retry_will_process(broker: Broker) -> None:
    order = place_order()

    with patch.object(payments, "charge", side_effect=TemporaryError("no answer")):
        tasks.process_order.apply(kwargs={"order_id": order.pk})

    assert broker.messages() == []


# --- send_order_confirmation ---


def test_send_order_confirmation_mails_the_customer_and_records_it(confirmed: Order) -> None:
    tasks.send_order_confirmation.apply(kwargs={"order_id": confirmed.pk}).get()

    confirmed.refresh_from_db()
    [message] = outbox.outbox
    assert (message.to, confirmed.reference in message.subject) == ([confirmed.customer.email], True)
    assert confirmed.mail_sent_at is not None
    assert confirmed.events.filter(kind="confirmed").count() == 1


@pytest.mark.proves("orders.tasks.send_order_confirmation", "twice", page="orders:detail")
def test_send_order_confirmation_twice_is_once(confirmed: Order) -> None:
    for _ in range(2):
        tasks.send_order_confirmation.apply(kwargs={"order_id": confirmed.pk}).get()

    assert len(outbox.outbox) == 1
    assert confirmed.events.filter(kind="confirmed").count() == 1


def test_send_order_confirmation_takes_others_along_that_wait(confirmed: Order) -> None:
    others = [put(place_order(), Status.COMPLETED) for _ in range(2)]
    Order.objects.filter(pk__in=[order.pk for order in others]).update(mail_due_at=timezone.now())

    for order in (confirmed, *others):
        tasks.send_order_confirmation.apply(kwargs={"order_id": order.pk}, task_id=f"of-{order.pk}").get()

    assert sorted(message.to[0] for message in outbox.outbox) == sorted(
        order.customer.email for order in (confirmed, *others)
    )
    assert {order.events.get(kind="confirmed").task_id for order in others} == {f"of-{confirmed.pk}"}


def test_send_order_confirmation_records_each_before_the_next(
    confirmed: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        put(place_order(), Status.COMPLETED)
    Order.objects.update(mail_due_at=timezone.now())
    build, unrecorded = emails.confirmation, []

    def count(order: Order) -> EmailMultiAlternatives:
        unrecorded.append(len(outbox.outbox) - OrderEvent.objects.filter(kind="confirmed").count())
        return build(order)

    monkeypatch.setattr(emails, "confirmation", count)

    tasks.send_order_confirmation.apply(kwargs={"order_id": confirmed.pk}).get()

    assert unrecorded == [0, 0, 0]


def test_send_order_confirmation_sends_nothing_when_the_order_is_open() -> None:
    order = place_order()

    tasks.send_order_confirmation.apply(kwargs={"order_id": order.pk}).get()

    assert outbox.outbox == []


# --- check_pending_orders ---


def test_check_pending_orders_queues_what_was_left_behind(broker: Broker) -> None:
    late = place_order()
    place_order()
    end_lease(late)

    tasks.check_pending_orders()

    assert broker.messages() == [("orders", "orders.tasks.process_order", {"order_id": late.pk})]


def test_check_pending_orders_queues_confirmations_that_are_owed(broker: Broker, confirmed: Order) -> None:
    sent, being_sent = (put(place_order(), Status.COMPLETED) for _ in range(2))
    Order.objects.filter(pk=sent.pk).update(mail_due_at=timezone.now(), mail_sent_at=timezone.now())
    Order.objects.filter(pk=being_sent.pk).update(mail_due_at=timezone.now() + timedelta(minutes=1))

    tasks.check_pending_orders()

    assert broker.messages() == [("mail", "orders.tasks.send_order_confirmation", {"order_id": confirmed.pk})]


def test_check_pending_orders_queues_one_message_for_fifty_confirmations(broker: Broker) -> None:
    for _ in range(mail.BATCH + 1):
        put(place_order(), Status.COMPLETED)
    Order.objects.update(mail_due_at=timezone.now())

    tasks.check_pending_orders()

    messages = broker.messages()
    for _, _, kwargs in messages:
        tasks.send_order_confirmation.apply(kwargs=kwargs).get()
    assert (len(messages), len(outbox.outbox)) == (2, mail.BATCH + 1)


def test_check_pending_orders_has_its_mails_dropped_before_the_next_one(broker: Broker, confirmed: Order) -> None:
    tasks.check_pending_orders()

    schedule: Any = SCHEDULES["Check pending orders"]
    [seconds] = broker.expiries()
    assert 0 < seconds < schedule.when.total_seconds()


@pytest.mark.proves("orders.tasks.check_pending_orders", "twice")
def test_check_pending_orders_twice_has_one_effect(broker: Broker, provider: list[str]) -> None:
    order = place_order()
    end_lease(order)
    for _ in range(2):
        tasks.check_pending_orders()

    for _, _, kwargs in broker.messages():
        tasks.process_order.apply(kwargs=kwargs)

    assert provider == [order.reference]
