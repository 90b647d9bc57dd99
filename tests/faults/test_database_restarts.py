"""PostgreSQL goes away and comes back under load, twice in each manner: nothing is lost, and no connection leaks."""

import re
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from django.conf import settings
from django.db import connection

from orders.models import Order, Product
from tests.factories import make_product
from tests.faults.arena import Arena, patiently
from tests.faults.promises import broken_promises, stock_differences, unfinished
from tests.faults.test_storm import StubbornBuyer
from tests.shop import answers, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STOCK, CLIENTS, MORE = 5000, 3, 5
# As many connections as there may be: two web processes' pools, the processes of two workers, and beat.
MOST = 2 * 4 + 2 * 3 + 1
# PostgreSQL's own names: "fast" ends all transactions, "immediate" is a crash that it has to recover from.
MANNERS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class Insistent(StubbornBuyer):
    """Sends the form again after a 400, too: so Django answers where the database fails while it saves the session."""

    def answers(self, *args: Any, **options: Any) -> list[requests.Response]:
        return [answer for answer in super().answers(*args, **options) if answer.ok]


def buy_until(over: threading.Event, product: Product, bought: list[int]) -> None:
    while not over.is_set():
        buyer = patiently(lambda: Insistent(product))
        buyer.prepare()
        assert "/orders/" in buyer.check_out().url
        bought.append(1)
    connection.close()


def restart(arena: Arena, manner: signal.Signals) -> None:
    arena.postgres.stop_signal = manner
    try:
        arena.postgres.stop()
    finally:
        arena.postgres.stop_signal = signal.SIGINT
    arena.postgres.start()
    # The test's own is one of those that died.
    connection.close()


def connections() -> int:
    """Count the connections of all processes of the shop to its database."""

    def count() -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return int(cursor.fetchone()[0])

    return patiently(count)


@pytest.mark.parametrize("manner", MANNERS)
def test_database_restart(manner: str, arena: Arena, record_property: Callable[[str, object], None]) -> None:
    """PostgreSQL is stopped under load and started again, twice: no order lost, none doubled, no connection leaked."""
    product: Product = make_product(stock=STOCK)
    over, bought, restarts = threading.Event(), list[int](), arena.restarts

    with ThreadPoolExecutor(CLIENTS) as crowd:
        crowds = [crowd.submit(buy_until, over, product, bought) for _ in range(CLIENTS)]
        try:
            wait_for(lambda: len(bought) > MORE, "orders to flow")
            before = connections()
            for _ in range(2):
                restart(arena, MANNERS[manner])
                so_far = len(bought)
                wait_for(lambda: len(bought) > so_far + MORE, "orders to flow again")  # noqa: B023
        finally:
            over.set()
        for future in crowds:
            future.result()

    ids = list(Order.objects.filter(items__product=product).order_by("pk").values_list("pk", flat=True))
    wait_for(lambda: not unfinished(ids), "all orders to end")
    # The web's pools may have grown to their size meanwhile, and nothing else.
    wait_for(lambda: connections() <= max(before, MOST), "no more connections than before")
    record_property(f"{manner}, orders", len(ids))
    record_property("connections before, afterwards", f"{before}, {connections()}")
    assert len(ids) == len(bought)
    assert broken_promises(arena, ids) == {}
    assert stock_differences({product.pk: STOCK}) == []
    # The same processes as before, none of which had to be started again.
    assert arena.restarts == restarts
    assert answers(f"{settings.SITE_URL}/")


def test_first_page_after_a_restart_is_no_error(arena: Arena) -> None:
    """PostgreSQL is restarted while idle: the first page afterwards is no error."""
    before = [page() for _ in range(20)]

    restart(arena, signal.SIGINT)

    assert [page() for _ in range(20)] == before == [(200, "")] * 20


def page() -> tuple[int, str]:
    """Ask for the catalogue; return its status, and the name of the error if it is one."""
    answer = requests.get(settings.SITE_URL, timeout=30)
    error = re.search(r'<pre class="exception_value">(.*?)</pre>', answer.text, re.DOTALL)
    return answer.status_code, "" if answer.ok or error is None else error[1].strip()
