"""Each fault at each point of an order's path: many orders are on their way at once, each meets one fault."""

from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal

import pytest

from orders import tasks
from orders.models import Card, Order, Status
from tests.factories import make_product, place_order
from tests.faults import points
from tests.faults.arena import Arena, patiently
from tests.faults.promises import broken_promises, stock_differences, unfinished
from tests.shop import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(420)]

Cell = tuple[str, str]
POINTS = [point.name for point in points.POINTS]
UNTIL_CHARGE = POINTS[: POINTS.index("after charge")]
CHARGED = ["after charge", "before commit"]
STOCK = 10
PRICES = [Decimal("12.50"), Decimal("0.99"), Decimal("1199.95")]
# A fault that is not here strikes everywhere.
ONLY_AT = {
    # A mail's hard limit is a minute, and what it does is what "kill -9 child" does.
    "hard limit": POINTS[: POINTS.index("before mail")],
    # Until its stock is reserved, an order may be cancelled.
    "cancelled too late": POINTS[POINTS.index("after reserve") :],
    # Once it has answered, the provider is asked again only where the answer was lost with the process; after
    # the commit, never.
    "provider timeout": UNTIL_CHARGE,
    "provider 5xx after charge": UNTIL_CHARGE,
    "kill -9, then timeout": CHARGED,
    "kill -9, then 5xx": CHARGED,
}
CELLS = [(point, fault) for fault in points.FAULTS for point in ONLY_AT.get(fault, POINTS)]
# These take other orders' processes away, and two deliveries need two of them.
ROUGH = ("kill -9 worker", "TERM", "hard limit")


@pytest.fixture(scope="module")
def struck(arena: Arena) -> dict[Cell, Order]:
    """One order for each cell, after all have ended or time is up."""
    # A webhook would end an order before its fault strikes, and hide what the task does not mend by itself.
    arena.sandbox("/controls", {"fault": "webhook_lost", "rate": 1})
    # Sorted by point, so that not all doubled messages wait for a second process at the same time.
    rough = send_at_once(cell for cell in sorted(CELLS) if cell[1] in ROUGH)
    others = send_at_once(cell for cell in sorted(CELLS) if cell[1] not in ROUGH)
    arena.sandbox("/controls", {"fault": "webhook_lost", "rate": 0})
    return rough | others


def send_at_once(cells: Iterable[Cell]) -> dict[Cell, Order]:
    orders = {cell: place(number, *cell) for number, cell in enumerate(cells)}
    for order in orders.values():
        tasks.process_order.delay(order_id=order.pk)
    ids = [order.pk for order in orders.values()]
    # Each cell says itself what did not end.
    with suppress(AssertionError):
        wait_for(lambda: not patiently(lambda: unfinished(ids)), "all orders of the matrix", 150)
    return orders


def place(number: int, point: str, fault: str) -> Order:
    # A slow bank, where the copy of a message would else have ended before the first one comes to its charge.
    slow = fault == "delivered twice" and point in ("after claim", "after reserve")
    product = make_product(stock=STOCK, price=PRICES[number % len(PRICES)])
    order = place_order(product=product, quantity=1 + number % 3, card=Card.SLOW if slow else Card.VISA)
    points.arm(point, order.pk, fault)
    return order


@pytest.mark.parametrize(("point", "fault"), CELLS)
def test_order_ends_once(point: str, fault: str, struck: dict[Cell, Order], arena: Arena) -> None:
    order = struck[point, fault]
    product = order.items.get().product

    assert points.has_struck(point, order.pk)
    assert points.still_armed(order) == []
    assert broken_promises(arena, [order.pk]) == {}
    assert stock_differences({product.pk: STOCK}) == []
    assert Order.objects.get(pk=order.pk).status == Status.COMPLETED
