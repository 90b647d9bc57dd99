"""The real processes, where the provider's answers or its webhooks go astray."""

import pytest

from orders import services, tasks
from orders.models import Order, Status
from tests.factories import make_product, place_order
from tests.faults.test_kills import assert_completed_once, completed
from tests.shop import Shop, wait_for


@pytest.fixture
def order(shop: Shop) -> Order:
    shop.sandbox("/controls", {"reset": "all"})
    return place_order(product=make_product(stock=10))


@pytest.fixture(autouse=True)
def calm_again(shop: Shop) -> object:
    yield
    shop.sandbox("/controls", {"reset": "all"})


def test_order_completes_by_its_webhook_when_no_answer_ever_arrives(shop: Shop, order: Order) -> None:
    shop.sandbox("/controls", {"fault": "drop_answer", "rate": 1})

    tasks.process_order.delay(order_id=order.pk)

    assert_completed_once(shop, order)
    assert order.events.get(kind="completed").origin.startswith("webhook evt_")


def test_order_completes_by_its_task_when_webhook_and_answer_are_lost(shop: Shop, order: Order) -> None:
    shop.sandbox("/controls", {"fault": "webhook_lost", "rate": 1})
    shop.sandbox("/controls", {"fault": "drop_answer", "count": 1})

    tasks.process_order.delay(order_id=order.pk)

    assert_completed_once(shop, order)
    assert order.events.get(kind="completed").worker.startswith("worker@")


@pytest.mark.parametrize("fault", ["webhook_doubled", "webhook_out_of_order", "webhook_late"])
def test_order_is_refunded_once_when_its_webhooks_go_astray(fault: str, shop: Shop, order: Order) -> None:
    shop.sandbox("/controls", {"fault": fault, "rate": 1} | ({"seconds": 1} if fault != "webhook_doubled" else {}))
    shop.sandbox("/controls", {"fault": "drop_answer", "count": 1})
    tasks.process_order.delay(order_id=order.pk)
    wait_for(completed(order), f"order {order} to complete")

    services.want_refund(order, by="Sam")
    shop.sandbox("/controls", {"fault": "error_after", "count": 1})
    tasks.refund_order.delay(order_id=order.pk)

    wait_for(lambda: Order.objects.filter(pk=order.pk, status=Status.REFUNDED).exists(), "the refund")
    wait_for(lambda: not any(hook["due"] for hook in shop.sandbox("/webhooks.json")["webhooks"]), "all webhooks")
    order.refresh_from_db()
    ledger = shop.sandbox(f"/ledger.json?order={order.reference}")
    assert [len(ledger["charges"]), len(ledger["refunds"])] == [1, 1]
    assert (order.items.get().product.stock, order.status, order.flag_reason) == (10, Status.REFUNDED, "")


def test_refund_ends_when_its_message_was_never_sent(shop: Shop, order: Order) -> None:
    shop.sandbox("/controls", {"fault": "webhook_lost", "rate": 1})
    tasks.process_order.delay(order_id=order.pk)
    wait_for(completed(order), f"order {order} to complete")

    services.want_refund(order, by="Sam")

    wait_for(lambda: Order.objects.filter(pk=order.pk, status=Status.REFUNDED).exists(), "the refund")
    assert len(shop.sandbox(f"/ledger.json?order={order.reference}")["refunds"]) == 1
