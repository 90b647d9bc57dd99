"""What is measured of one engine: a backlog, a click while nothing else happens, and ten kills."""

import random
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import NamedTuple

import redis
from django.conf import settings

from accounts.models import User
from benchmarks import backlog
from orders import services
from orders.models import Card, Order, OrderQuerySet, Product

from . import work
from .worker import Worker, held_back

CLICKS = 20
# Until the worker has started, and until a backlog is drained.
START_SECONDS, DRAIN_SECONDS = 30, 240
LEASE_SECONDS = 10
# Of one charge, so that kills hit some.
GATEWAY_SECONDS = 0.02
# Longer than a lease, and than a worker takes to start again; redelivery is given ten seconds more than it takes.
QUIET_SECONDS = 30


class Failed(Exception):
    """The engine cannot be measured."""


class Drained(NamedTuple):
    """Orders a second, until the last is completed and until all messages are handled; milliseconds.

    These are of the median click, and of the processors for each order.
    """

    rate: float
    emptied: float
    click: float
    worker: float
    servers: float


class Killed(NamedTuple):
    """Of the orders: still open without a sweep, and after one; asked for twice by one key; charged by two keys."""

    left: int
    remain: int
    asked_twice: int
    charged_twice: int
    # Messages that the engine still counts as waiting or running.
    stuck: int


def drain(engine: ModuleType, count: int) -> Drained:
    begin()
    with Worker(engine.WORKERS) as worker:
        click(engine)
        clicks = sorted(click(engine) for _ in range(CLICKS))
        queue(engine, backlog.fill(count))
        before, start = worker.seconds(), time.perf_counter()
        wait_until(lambda: not is_open(), DRAIN_SECONDS)
        completed = time.perf_counter() - start
        wait_until(lambda: not engine.waiting(), DRAIN_SECONDS)
        emptied = time.perf_counter() - start
        costs = [1000 * (now - then) / count for now, then in zip(worker.seconds(), before, strict=True)]
    backlog.forget_mail()
    return Drained(count / completed, count / emptied, 1000 * clicks[CLICKS // 2], *costs)


def begin() -> None:
    """Leave each engine the same: nothing in its Redis, no order open, tables vacuumed."""
    work.counters().delete(work.CHARGES)
    redis.Redis.from_url(work.BROKER).flushdb()
    open_orders().delete()
    backlog.tidy()


def queue(engine: ModuleType, ids: Sequence[int]) -> None:
    """Queue a message for each order before the first of them is claimed."""
    with held_back():
        for pk in ids:
            engine.enqueue(pk)


def click(engine: ModuleType) -> float:
    customer, products = User.objects.get(), list(Product.objects.order_by("?")[: backlog.ITEMS])
    start = time.perf_counter()
    order = services.place_order(customer, dict.fromkeys(products, 1), card=Card.VISA, token=uuid.uuid4())
    engine.enqueue(order.pk)
    wait_until(lambda: not is_open(), START_SECONDS)
    return time.perf_counter() - start


def open_orders() -> OrderQuerySet:
    return Order.objects.filter(Order.lease.open)


def is_open() -> bool:
    return open_orders().exists()


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.002) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{open_orders().count()} orders were open after {seconds} s")
        time.sleep(pause)


def kill(engine: ModuleType, count: int, kills: int) -> Killed:
    """Kill the worker so many times within a backlog; see what it completes by itself, and what with a sweep.

    A message takes no other order along: sets would hide most of what was lost.
    """
    begin()
    settings.ORDER_LEASE = timedelta(seconds=LEASE_SECONDS)
    variables = {"ORDER_LEASE_SECONDS": LEASE_SECONDS, "GATEWAY_SECONDS": GATEWAY_SECONDS, "ORDERS_AT_ONCE": 1}
    with Worker(engine.WORKERS, **{name: str(value) for name, value in variables.items()}) as worker:
        queue(engine, backlog.fill(count))
        for charge in sorted(random.Random(1).sample(range(1, count), kills)):
            wait_until(partial(is_charged, charge), DRAIN_SECONDS, pause=0.05)
            worker.start_again()
        wait_until_quiet(max(engine.REDELIVERS + 10, QUIET_SECONDS))
        left = open_orders().count()
        sweep(engine)
        remain = open_orders().count()
    backlog.forget_mail()
    return Killed(left, remain, *charged(), engine.waiting())


def wait_until_quiet(seconds: float) -> None:
    """Return when for so long no order has been charged or completed, or none is open."""
    last, since = (-1, -1), time.monotonic()
    while time.monotonic() - since < seconds and last[1]:
        if (now := (charges(), open_orders().count())) != last:
            last, since = now, time.monotonic()
        time.sleep(0.1)


def sweep(engine: ModuleType) -> None:
    """Queue overdue orders again, as `check_pending_orders` does, until none is open or a minute has passed."""
    deadline = time.monotonic() + 60
    while is_open() and time.monotonic() < deadline:
        for pk in Order.objects.due().for_machine().order_by("due_at").values_list("pk", flat=True)[:500]:
            engine.enqueue(pk)
        time.sleep(LEASE_SECONDS)


def is_charged(times: int) -> bool:
    return charges() >= times


def charges() -> int:
    return sum(map(int, work.counters().hvals(work.CHARGES)))


def charged() -> tuple[int, int]:
    counted = {key: int(number) for key, number in work.counters().hgetall(work.CHARGES).items()}
    orders = [key.split()[0] for key in counted]
    return sum(number > 1 for number in counted.values()), len(orders) - len(set(orders))
