from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from orders.models import Order, Status
from tests.factories import make_product
from tests.faults.arena import Arena
from tests.faults.buyers import Buyer
from tests.faults.promises import broken_promises, stock_differences, unfinished
from tests.shop import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BUYERS, STOCK = 200, 10


def was_told(buyer: Buyer, order: Order | None) -> bool:
    """True when the person reads why: on the order's page, or on the basket's in place of an order."""
    if order is None:
        return "sold out" in buyer.page.text or "left. Please take fewer" in buyer.page.text
    page = buyer.ask("GET", order.get_absolute_url()).text
    return order.status == Status.REJECTED and "Out of stock" in page and "were not charged" in page


def test_last_item(arena: Arena, record_property: Callable[[str, object], None]) -> None:
    """200 buyers at once for a stock of 10: exactly 10 complete, 190 are rejected, and no one pays for nothing."""
    product = make_product(stock=STOCK)
    buyers = [Buyer(product) for _ in range(BUYERS)]

    with ThreadPoolExecutor(BUYERS) as crowd:
        list(crowd.map(Buyer.prepare, buyers))
        list(crowd.map(Buyer.check_out, buyers))

    orders = {buyer: buyer.order() for buyer in buyers}
    ids = [order.pk for order in orders.values() if order]
    wait_for(lambda: not unfinished(ids), "all orders to end")
    orders = {buyer: buyer.order() for buyer in buyers}
    ended = Counter(order.status if order else "refused at checkout" for order in orders.values())
    record_property("ended", ", ".join(f"{count} {name}" for name, count in sorted(ended.items())))
    assert ended[Status.COMPLETED] == STOCK
    assert sum(was_told(buyer, order) for buyer, order in orders.items()) == BUYERS - STOCK
    assert broken_promises(arena, ids) == {}
    assert stock_differences({product.pk: STOCK}) == []
    assert not [status for buyer in buyers for status in buyer.statuses if status >= 500]
