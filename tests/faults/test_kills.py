"""Real processes die in the middle of an order; it ends all the same, once."""

import signal
from collections.abc import Callable

import psutil
import pytest

from orders import tasks
from orders.models import Card, Order, Status
from tests.factories import make_product, place_order
from tests.shop import Shop, wait_for

pytestmark = pytest.mark.every_broker


def charging(order: Order) -> bool:
    return Order.objects.filter(pk=order.pk, status=Status.PROCESSING).exists()


def completed(order: Order) -> Callable[[], bool]:
    return lambda: Order.objects.filter(pk=order.pk, status=Status.COMPLETED, mail_sent_at__isnull=False).exists()


def charges(shop: Shop, order: Order) -> int:
    ledger = shop.sandbox("/ledger.json")["charges"]
    return sum(charge["order"] == order.reference and charge["status"] == "succeeded" for charge in ledger)


def assert_completed_once(shop: Shop, order: Order) -> None:
    wait_for(completed(order), f"order {order} to complete and be confirmed")
    product = order.items.get().product
    mails = shop.sandbox(f"/mail.json?to={order.customer.email}")

    assert charges(shop, order) == 1
    assert product.stock == 9
    assert len({mail["message_id"] for mail in mails}) == 1
    assert [event.kind for event in order.events.order_by("pk") if event.kind not in ("retry", "interrupted")] == [
        "placed",
        "processing",
        "completed",
        "confirmed",
    ]


@pytest.fixture
def slow_order(shop: Shop) -> Order:
    """An order that a worker is charging now; the bank takes its time."""
    order = place_order(product=make_product(stock=10), card=Card.SLOW)
    tasks.process_order.delay(order_id=order.pk)
    wait_for(lambda: charging(order), "the worker to charge")
    return order


def test_order_completes_once_when_the_worker_is_killed_while_charging(shop: Shop, slow_order: Order) -> None:
    shop.kill("worker")
    shop.start("worker")

    assert_completed_once(shop, slow_order)


def test_order_completes_once_when_the_child_is_killed_while_charging(shop: Shop, slow_order: Order) -> None:
    for child in psutil.Process(shop.running["worker"].pid).children():
        child.send_signal(signal.SIGKILL)

    assert_completed_once(shop, slow_order)


def test_order_completes_once_when_the_sandbox_is_killed_while_charging(shop: Shop, slow_order: Order) -> None:
    shop.kill("sandbox")
    shop.start("sandbox")

    assert_completed_once(shop, slow_order)


def test_order_completes_once_when_the_answer_is_lost_after_charging(shop: Shop) -> None:
    order = place_order(product=make_product(stock=10))
    shop.sandbox("/controls", {"fault": "drop_answer", "count": 1})

    tasks.process_order.delay(order_id=order.pk)

    assert_completed_once(shop, order)


def test_order_completes_once_when_its_message_is_delivered_twice(shop: Shop) -> None:
    order = place_order(product=make_product(stock=10), card=Card.SLOW)

    for _ in range(3):
        tasks.process_order.apply_async(kwargs={"order_id": order.pk}, task_id="the-same-task")
        tasks.process_order.delay(order_id=order.pk)

    assert_completed_once(shop, order)


def test_order_completes_once_when_its_message_was_never_sent(shop: Shop) -> None:
    order = place_order(product=make_product(stock=10))

    assert_completed_once(shop, order)


@pytest.mark.parametrize("name", ["web", "beat", "flower"])
def test_order_completes_once_when_a_bystander_is_killed(name: str, shop: Shop, slow_order: Order) -> None:
    shop.kill(name)

    assert_completed_once(shop, slow_order)
    shop.heal()
