import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from django.conf import settings

from orders.models import Order, Product
from tests.factories import make_product
from tests.faults.arena import WORKERS, Arena
from tests.faults.buyers import Buyer
from tests.faults.promises import broken_promises, stock_differences, unfinished
from tests.shop import SECONDS, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STOCK, ROUNDS, CLIENTS = 5000, 2, 3


def listens(pid: int) -> bool:
    """True when a web server's processes all have their socket."""
    family = psutil.Process(pid).children()
    ports = [{c.laddr.port for c in process.net_connections() if c.status == psutil.CONN_LISTEN} for process in family]
    return len(ports) >= 2 and all(settings.PORT in found for found in ports)


def replace_web(arena: Arena) -> None:
    """Start the new web server beside the old one, which shares its port, then stop the old one."""
    with arena.lock:
        old = arena.running.pop("web")
        arena.start("web")
    wait_for(lambda: listens(arena.running["web"].pid), "the new web server")
    old.terminate()
    old.wait(SECONDS)


def buy_until(over: threading.Event, buyer: Buyer) -> int:
    bought = 0
    while not over.is_set():
        buyer.prepare()
        assert "/orders/" in buyer.check_out().url
        bought += 1
    return bought


def test_deploy(arena: Arena, record_property: Callable[[str, object], None]) -> None:
    """Web and workers are replaced one after another while people buy: none lost, none doubled, no 5xx."""
    product: Product = make_product(stock=STOCK)
    buyers, over = [Buyer(product) for _ in range(CLIENTS)], threading.Event()

    with ThreadPoolExecutor(CLIENTS) as crowd:
        bought = [crowd.submit(buy_until, over, buyer) for buyer in buyers]
        try:
            for _ in range(ROUNDS):
                for name in WORKERS:
                    arena.restart(name)
                replace_web(arena)
        finally:
            over.set()
        total = sum(future.result() for future in bought)

    ids = list(Order.objects.filter(items__product=product).order_by("pk").values_list("pk", flat=True))
    wait_for(lambda: not unfinished(ids), "all orders to end")
    record_property("orders", total)
    record_property("connections dropped and asked again", sum(buyer.reconnects for buyer in buyers))
    assert len(ids) == total
    assert broken_promises(arena, ids) == {}
    assert stock_differences({product.pk: STOCK}) == []
    assert not [status for buyer in buyers for status in buyer.statuses if status >= 500]
