"""Each fault at each point of an order's path: all orders are on their way at once, each meets one fault."""

from contextlib import suppress
from decimal import Decimal

import pytest

from orders import tasks
from orders.models import Order, Status
from tests.factories import make_product, place_order
from tests.faults import points
from tests.faults.arena import Arena, patiently
from tests.faults.promises import broken_promises, stock_differences, unfinished
from tests.shop import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(420)]

Cell = tuple[str, str]
MAIL = ("before mail", "after mail", "after its record")
STOCK = 10
PRICES = [Decimal("12.50"), Decimal("0.99"), Decimal("1199.95")]
# A mail's hard limit is a minute, and what it does is what "kill -9 child" does.
CELLS = [
    (point.name, fault)
    for fault in points.FAULTS
    for point in points.POINTS
    if not (fault == "hard limit" and point.name in MAIL)
]


@pytest.fixture(scope="module")
def struck(arena: Arena) -> dict[Cell, Order]:
    """One order for each cell, after all have ended or time is up."""
    orders = {}
    for number, (point, fault) in enumerate(CELLS):
        product = make_product(stock=STOCK, price=PRICES[number % len(PRICES)])
        orders[point, fault] = place_order(product=product, quantity=1 + number % 3)
        points.arm(point, orders[point, fault].pk, fault)
    for order in orders.values():
        tasks.process_order.delay(order_id=order.pk)
    ids = [order.pk for order in orders.values()]
    # Each cell says itself what did not end.
    with suppress(AssertionError):
        wait_for(lambda: not patiently(lambda: unfinished(ids)), "all orders of the matrix", 240)
    return orders


@pytest.mark.parametrize(("point", "fault"), CELLS)
def test_order_ends_once(point: str, fault: str, struck: dict[Cell, Order], arena: Arena) -> None:
    order = struck[point, fault]
    product = order.items.get().product

    assert points.has_struck(point, order.pk)
    assert broken_promises(arena, [order.pk]) == {}
    assert stock_differences({product.pk: STOCK}) == []
    assert Order.objects.get(pk=order.pk).status == Status.COMPLETED
