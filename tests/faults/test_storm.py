import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
import requests

from myproject import embedded
from orders import services, tasks
from orders.models import Card, Order, Product
from tests.factories import make_product, make_user
from tests.faults.arena import WORKERS, Arena, patiently
from tests.faults.buyers import Buyer
from tests.faults.promises import broken_promises, stock_differences, unfinished
from tests.shop import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

# The least time for the faults; more orders take as long as it takes to place them.
STORM_SECONDS = 100
RECOVERY_SECONDS = 240
BUYERS, PRODUCTS = 10, 12
CARDS = [Card.VISA] * 8 + [Card.DECLINED, Card.INSUFFICIENT]
# One order in five comes through the web server, which is the dearest part of it.
THROUGH_WEB = 0.2
RATES = {"error_before": 0.05, "error_after": 0.1, "drop_answer": 0.1, "refuse": 0.05, "latency": 0.03}
RATES |= {"webhook_lost": 0.2, "webhook_doubled": 0.2, "webhook_late": 0.2, "smtp_temporary": 0.1}


class Storm:
    """Breaks one thing after another, each kind before any comes again, in an order that the seed decides."""

    def __init__(self, arena: Arena, chance: random.Random, order_ids: list[int]) -> None:
        self.arena, self.chance, self.order_ids = arena, chance, order_ids
        self.over, self.count = threading.Event(), Counter[str]()
        self.faults: list[Callable[[], None]] = [
            self.kill_worker,
            self.kill_child,
            self.stop_worker,
            self.freeze_worker,
            self.restart_redis,
            self.freeze_redis,
            self.wipe_redis,
            self.restart_postgres,
            self.kill_postgres,
            self.freeze_postgres,
            self.kill_sandbox,
            self.kill_beat,
            self.kill_web,
            self.deliver_twice,
            self.deliver_twice,
        ]

    def __enter__(self) -> None:
        self.thread = threading.Thread(target=self.rage)
        self.thread.start()

    def __exit__(self, *exc_info: object) -> None:
        # Whatever ends the test, the storm must not go on into the next one.
        self.over.set()
        self.thread.join()
        wait_for(lambda: calm(self.arena), "the sandbox to be told that the storm is over")

    def rage(self) -> None:
        while not self.over.is_set():
            for fault in self.chance.sample(self.faults, len(self.faults)):
                self.over.wait(self.chance.uniform(0.5, 3))
                if self.over.is_set():
                    return
                self.count[fault.__name__.replace("_", " ")] += 1
                fault()

    def worker(self) -> str:
        return self.chance.choice(WORKERS)

    def kill_worker(self) -> None:
        self.arena.kill(self.worker())

    def kill_child(self) -> None:
        self.arena.kill_child(self.worker())

    def stop_worker(self) -> None:
        self.arena.terminate(self.worker())

    def freeze_worker(self) -> None:
        # Longer than its lease, so that it wakes up in the middle of what another has done since.
        self.arena.freeze(self.worker(), self.chance.uniform(6, 9))

    def restart_redis(self) -> None:
        self.arena.redis.stop()
        time.sleep(self.chance.uniform(0, 3))
        self.arena.redis.start()

    def freeze_redis(self) -> None:
        self.arena.freeze("redis", self.chance.uniform(1, 5))

    def wipe_redis(self) -> None:
        self.arena.wipe_redis()

    def restart_postgres(self) -> None:
        self.arena.postgres.stop()
        time.sleep(self.chance.uniform(0, 2))
        self.arena.postgres.start()

    def kill_postgres(self) -> None:
        assert self.arena.postgres.process
        self.arena.postgres.process.kill()
        self.arena.postgres.process.wait()
        wait_for(self.revive_postgres, "PostgreSQL")

    def revive_postgres(self) -> bool:
        """Start it again as `manage.py run` does: at first its orphans may still hold the memory of the dead one."""
        with suppress(embedded.Unavailable):
            self.arena.postgres.keep_running()
            return True
        return False

    def freeze_postgres(self) -> None:
        self.arena.freeze("postgres", self.chance.uniform(1, 4))

    def kill_sandbox(self) -> None:
        self.arena.kill("sandbox")

    def kill_beat(self) -> None:
        self.arena.kill("beat")

    def kill_web(self) -> None:
        self.arena.kill("web")

    def deliver_twice(self) -> None:
        for pk in self.chance.sample(self.order_ids, min(10, len(self.order_ids))):
            for task in (tasks.process_order, tasks.send_order_confirmation):
                for _ in range(2):
                    task.apply_async_on_commit(kwargs={"order_id": pk}, task_id=f"twice-{pk}")


def stocked_products() -> list[Product]:
    """Products with so few units that some orders must be rejected, and odd prices."""
    return [
        make_product(stock=0, price=Decimal(f"{number * 7 + 1}.{number * 13 % 100:02}")) for number in range(PRODUCTS)
    ]


def place(chance: random.Random, products: list[Product], buyer: object) -> int:
    """Place an order of up to three products, as often as it takes, and queue it as the view does."""
    wanted = {product: chance.randint(1, 3) for product in chance.sample(products, chance.randint(1, 3))}
    card, token = chance.choice(CARDS), uuid.UUID(int=chance.getrandbits(128), version=4)
    order: Order = patiently(lambda: services.place_order(buyer, wanted, card=card, token=token))  # type: ignore[arg-type]
    patiently(lambda: tasks.process_order.delay_on_commit(order_id=order.pk))
    return order.pk


class StubbornBuyer(Buyer):
    """Sends each form again until the web server, which may be dead or without its database, has taken it."""

    def ask(self, *args: Any, **options: Any) -> requests.Response:
        return wait_for(lambda: self.answers(*args, **options), "a page that is no error")[0]

    def answers(self, *args: Any, **options: Any) -> list[requests.Response]:
        try:
            answer = super().ask(*args, **options)
        except requests.RequestException:
            return []
        return [answer] if answer.status_code < 500 else []


def click(product: Product) -> list[int]:
    """Order one unit in the browser's way; what is sold out cannot be ordered."""
    buyer = patiently(lambda: StubbornBuyer(product))
    buyer.prepare()
    if "token" in buyer.form:
        buyer.check_out()
    return patiently(lambda: list(Order.objects.of(buyer.person).order_by("pk").values_list("pk", flat=True)))


@pytest.fixture
def storming(arena: Arena) -> Arena:
    """Workers as in production, that take whole sets."""
    arena.employ("tests.faults.plain_worker")
    return arena


def test_storm(
    storming: Arena, seed: int, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    """Storm: everything dies, freezes and comes twice at random; each order ends once, to the cent and the unit."""
    number, chance = int(request.config.getoption("orders")), random.Random(seed)
    products, buyers = stocked_products(), [make_user() for _ in range(BUYERS + number // 50)]
    stocked = {product.pk: number // 4 for product in products}
    Product.objects.filter(pk__in=stocked).update(stock=number // 4)
    order_ids: list[int] = []
    storm = Storm(storming, random.Random(f"{seed}:faults"), order_ids)
    for fault, rate in RATES.items():
        storming.sandbox("/controls", {"fault": fault, "rate": rate, "seed": seed})

    with storm:
        start = time.monotonic()
        for count in range(number):
            if chance.random() < THROUGH_WEB:
                order_ids += click(chance.choice(products))
            else:
                order_ids.append(place(chance, products, chance.choice(buyers)))
            time.sleep(max(0, STORM_SECONDS * count / number - (time.monotonic() - start)))
    last_fault = time.monotonic()

    try:
        wait_for(lambda: not patiently(lambda: unfinished(order_ids)), "all orders to end", RECOVERY_SECONDS)
    finally:
        record_property("seed", seed)
        record_property("orders", number)
        record_property("faults", storm.count.total())
        record_property("seconds from the last fault until all had ended", round(time.monotonic() - last_fault, 1))
        statuses = Order.objects.filter(pk__in=order_ids).order_by().values_list("status", flat=True)
        record_property("ended", ", ".join(f"{n} {name}" for name, n in sorted(Counter(statuses).items())))
    assert broken_promises(storming, order_ids) == {}
    assert stock_differences(stocked) == []


def calm(arena: Arena) -> bool:
    try:
        for fault in RATES:
            arena.sandbox("/controls", {"fault": fault, "rate": 0})
    except OSError:
        return False
    return True
