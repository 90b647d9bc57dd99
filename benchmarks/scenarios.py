"""What is measured. Each scenario takes its sides in turn, round after round, and keeps the median of each."""

import time
import uuid
from collections.abc import Callable, Mapping
from statistics import quantiles

from accounts.models import User
from orders import services
from orders.models import Card, Order, Product
from orders.tasks import process_order, queue_new_order

from . import backlog, processes, shop, together, tutorial
from .environment import CONNINFO
from .report import Median, Row

ROUNDS = 5
CLICKS = 100
CROWD = 50_000
GATEWAY_SECONDS = 0.15

Measure = Callable[[], float]


def in_turn(sides: Mapping[str, Measure], rounds: int = ROUNDS) -> dict[str, Median]:
    """Return the median of each side; whatever else the machine does, it does to all of them."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            figures[name].append(measure())
    return {name: Median.of(values) for name, values in figures.items()}


# --- A backlog ---


def gateway_inside(count: int) -> list[Row]:
    few = max(count // 5, 1)
    emptied: list[float] = []
    each_emptied: list[float] = []
    with processes.workers("shop", "tutorial", GATEWAY="inside"):
        rates = in_turn(
            {
                "tutorial": lambda: drain_tutorial(few),
                "shop": lambda: drain_shop(count, emptied),
                "each": lambda: drain_shop(count, each_emptied, each_queued=True),
                "plain SQL": lambda: drain_plain_sql(count),
                "no-op": lambda: drain_noop(count),
            }
        )
    base = rates["tutorial"]
    title = f"Backlog of {count:,} orders, the charge answers at once"
    return [
        Row(title, "the tutorial's way", base, base),
        Row("", "ours", rates["shop"], base, least=30),
        Row("", "ours, until all its messages are handled too", Median.of(emptied), base, least=15),
        Row("", "the same, were there one for each order", Median.of(each_emptied), base),
        Row("", "a task that does nothing", rates["no-op"], base),
        Row("", "the same work as plain SQL, without Celery", rates["plain SQL"], rates["shop"], most=4),
    ]


def gateway_slow(count: int) -> list[Row]:
    with processes.workers("shop", "tutorial", GATEWAY="inside", GATEWAY_SECONDS=str(GATEWAY_SECONDS)):
        rates = in_turn({"tutorial": lambda: drain_tutorial(max(count // 50, 1)), "shop": lambda: drain_shop(count)})
    base = rates["tutorial"]
    return [
        Row(f"The same, the gateway takes {GATEWAY_SECONDS * 1000:.0f} ms", "the tutorial's way", base, base),
        Row("", "ours", rates["shop"], base, least=25),
    ]


def gateway_real(count: int) -> list[Row]:
    count = max(count // 5, 1)
    with processes.sandbox(), processes.workers("shop"):
        rates = in_turn({"client": lambda: charge_alone(count), "shop": lambda: drain_shop(count)})
    base = rates["client"]
    return [
        Row("The same, charged over HTTP in the sandbox", "the stripe client by itself", base, base),
        Row("", "ours", rates["shop"], base, least=0.6),
    ]


def drain_shop(count: int, emptied: list[float] | None = None, *, each_queued: bool = False) -> float:
    ids = backlog.fill(count) if each_queued else backlog.place(count)
    backlog.park(process_order, [{"order_id": pk} for pk in ids])
    backlog.tidy()
    start = backlog.release("orders")
    completed = backlog.wait_until_completed() - start
    empty = backlog.wait_until_empty("orders") - start
    if emptied is not None:
        emptied.append(count / empty)
    owed, queued = backlog.forget_mail()
    if owed != count or queued < count:
        raise SystemExit(f"Of {count} orders {owed} owe a confirmation, and messages for {queued} are queued.")
    return count / completed


def drain_tutorial(count: int) -> float:
    ids = backlog.fill(count)
    backlog.park(tutorial.process_order, [{"order_id": pk} for pk in ids])
    backlog.tidy()
    start = backlog.release("tutorial")
    completed = backlog.wait_until_completed() - start
    backlog.wait_until_empty("tutorial")
    return count / completed


def drain_plain_sql(count: int) -> float:
    backlog.fill(count)
    backlog.tidy()
    seconds = together.seconds_of("benchmarks.plain_sql", CONNINFO)
    backlog.wait_until_completed()
    backlog.forget_mail()
    return count / seconds


def drain_noop(count: int) -> float:
    backlog.park(shop.noop, [{}] * count)
    start = backlog.release("default")
    return count / (backlog.wait_until_empty("default") - start)


def charge_alone(count: int) -> float:
    each = max(count // together.PROCESSES, 1)
    return each * together.PROCESSES / together.seconds_of("benchmarks.client", each)


# --- An idle shop ---


def one_click() -> list[Row]:
    """How long one customer waits in a shop where nothing else happens, and where much waits in other queues."""
    sides = {"no-op": ask_noop, "tutorial": click_tutorial, "shop": click_shop}
    with processes.workers("shop", "tutorial", GATEWAY="inside"):
        seconds = in_turn(sides, rounds=CLICKS)
        backlog.crowd(CROWD)
        crowded = in_turn({"shop": click_shop}, rounds=CLICKS)["shop"]
    backlog.forget_mail()
    base, ours = seconds["no-op"], seconds["shop"]
    return [
        Row("Idle shop, from the click to completed", "a task that does nothing", base, base, unit="ms"),
        Row("", "the tutorial's way", seconds["tutorial"], base, unit="ms"),
        Row("", "ours", ours, base, unit="ms", most=4),
        Row("", "ours, the slowest of a hundred, beside the median", slowest(ours.rounds), ours, unit="ms", most=3),
        Row("", f"ours, {CROWD:,} messages wait in other queues", crowded, ours, unit="ms", most=1.5),
    ]


def slowest(seconds: list[float]) -> float:
    """Return the 99th percentile."""
    return quantiles(seconds, n=100, method="inclusive")[-1]


def ask_noop() -> float:
    key, start = uuid.uuid4().hex, time.perf_counter()
    shop.answer.delay(key=key)
    backlog.redis().blpop(key)
    return time.perf_counter() - start


def click_shop() -> float:
    return click(queue_new_order)


def click_tutorial() -> float:
    return click(lambda order: tutorial.process_order.delay(order.pk))


def click(publish: Callable[[Order], object]) -> float:
    customer, products = User.objects.get(), list(Product.objects.order_by("?")[: backlog.ITEMS])
    start = time.perf_counter()
    order = services.place_order(customer, dict.fromkeys(products, 1), card=Card.VISA, token=uuid.uuid4())
    publish(order)
    wait_for_order(order.pk)
    seconds = time.perf_counter() - start
    backlog.wait_until_empty("orders")
    return seconds


def wait_for_order(pk: int) -> None:
    completed = "SELECT 1 FROM orders_order WHERE id = %s AND status = 'completed'"
    processes.wait_for(lambda: backlog.found(completed, pk), f"order {pk}", every=0.001)
