"""Redis is away; the click does not wait for it, and the order does not need it to come back complete."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from orders.models import Status
from tests.factories import make_product
from tests.faults.arena import Arena
from tests.faults.buyers import Buyer
from tests.faults.promises import broken_promises, stock_differences, unfinished
from tests.shop import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

STOCK = 10
AT_MOST_SECONDS = 3
HONEST = "It will be processed as soon as a worker is free."


@contextmanager
def refused(arena: Arena) -> Iterator[None]:
    arena.redis.stop()
    try:
        yield
    finally:
        arena.redis.start()


@contextmanager
def frozen(arena: Arena) -> Iterator[None]:
    assert arena.redis.process
    os.kill(arena.redis.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(arena.redis.process.pid, signal.SIGCONT)


@contextmanager
def wiped(arena: Arena) -> Iterator[None]:
    """Empty while workers, beat and web hold their connections.

    Nothing has to be declared anew: queues without an exchange need no binding, a list exists by being pushed to.
    """
    arena.wipe_redis()
    yield


AWAY: dict[str, Callable[[Arena], AbstractContextManager[None]]] = {
    "refused": refused,
    "frozen": frozen,
    "wiped": wiped,
}


@pytest.mark.parametrize("name", AWAY)
def test_broker_away(name: str, arena: Arena, record_property: Callable[[str, object], None]) -> None:
    """Redis away: checkout answers in 3 seconds, says so, and the order completes by itself."""
    product = make_product(stock=STOCK)
    buyer = Buyer(product)
    # The web has a connection to Redis, which is the longest wait; it lasts as long as the buyer's own to the web.
    buyer.prepare()
    buyer.place()
    first = buyer.order()
    assert first
    wait_for(lambda: not unfinished([first.pk]), "the first order to complete")
    buyer.prepare()

    with AWAY[name](arena):
        seconds = buyer.place()
        order = buyer.order()
        assert order
        assert order != first
        page = buyer.ask("GET", order.get_absolute_url()).text

    back = time.monotonic()
    record_property(f"{name}, seconds until the answer", round(seconds, 2))
    assert buyer.page.headers["Location"] == order.get_absolute_url()
    assert HONEST in page or name == "wiped"
    assert seconds < AT_MOST_SECONDS
    # The connection was still open, so this was the longest wait.
    assert seconds > 1.5 or name != "frozen"
    wait_for(lambda: not unfinished([order.pk]), "the order to complete by itself")
    record_property("until it had ended when Redis was back", round(time.monotonic() - back, 1))
    order.refresh_from_db()
    assert order.status == Status.COMPLETED
    assert broken_promises(arena, [order.pk]) == {}
    assert stock_differences({product.pk: STOCK}) == []
    # Remote control and its answers travel by exchanges of their own.
    wait_for(arena.all_workers_answer, "both workers to answer")
