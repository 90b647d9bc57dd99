from decimal import Decimal
from unittest.mock import patch

import pytest

from orders import payments, services
from orders.models import Card, Order, Status
from tests.factories import make_product, make_user, place_order

pytestmark = pytest.mark.django_db


def process(*orders: Order, task_id: str = "task", outcome: payments.Outcome = "pi_1") -> services.Processed:
    """Process the orders with a provider that answers so to each of them; only the socket is stubbed."""
    with patch.object(payments, "charge_all", lambda started: [outcome for _ in started]):
        return services.process_orders([order.pk for order in orders], task_id)


def test_place_order_twice_with_one_token_is_one_order() -> None:
    customer, product = make_user(), make_product()
    first = place_order(customer, product)

    second = services.place_order(customer, {product: 1}, card=Card.VISA, token=first.token)

    assert second == first
    assert Order.objects.get().payments.count() == 1


def test_process_orders_completes_and_takes_the_stock() -> None:
    product = make_product(stock=10, price=Decimal("12.50"))
    order = place_order(product=product, quantity=3)

    processed = process(order)

    order.refresh_from_db()
    product.refresh_from_db()
    assert processed == ([order.pk], [])
    assert (order.status, order.total, product.stock) == (Status.COMPLETED, Decimal("37.50"), 7)
    assert [event.kind for event in order.events.order_by("pk")] == ["placed", "processing", "completed"]
