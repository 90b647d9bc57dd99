"""What a customer is charged."""

from lab import rows
from lab.arena import NAIVE, OURS, Arena
from lab.experiment import Numbers, Side, at_least, exactly, experiment
from lab.naive import orders as naive
from lab.naive import stock
from lab.naive.gateway import charge
from orders import payments, services, tasks
from orders.models import Order, OrderQuerySet, Product, Status


def naive_no_key(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    [order] = rows.place_many(1)
    lab.fault("drop_answer", count=1)
    lab.say("The provider will charge, and not answer.", placed=1)
    naive.charge_order.delay(order.pk)
    lab.until(lambda: rows.completed(order), "the order")
    lab.say("The task was tried again and has ended.", ended=1)
    return lab.count(charged=lab.charges(order.reference))


def ours_no_key(lab: Arena) -> Numbers:
    lab.common(OURS)
    [order] = rows.place_many(1)
    lab.fault("drop_answer", count=1)
    lab.say("The provider will charge, and not answer.", placed=1)
    tasks.process_order.delay(order_id=order.pk)
    lab.until(lambda: rows.completed(order), "the order", sweep=True)
    lab.say("The task has asked again, by the same key.", ended=1)
    return lab.count(charged=lab.charges(order.reference))


experiment(
    "no-idempotency-key",
    "A charge without an idempotency key",
    practice="Call the payment provider, and retry when it does not answer.",
    fault="The provider charges, and its answer is lost.",
    naive=Side(
        naive_no_key, (naive.charge_order, charge), '"metadata[order]"', {"ended": exactly(1), "charged": at_least(2)}
    ),
    ours=Side(ours_no_key, (payments.charge,), '"idempotency_key"', {"ended": exactly(1), "charged": exactly(1)}),
    why="When the answer is lost, the outcome is unknown, and asking again charges again. Ours commits a key before "
    "the first request, and the provider answers for a key that it knows what it answered before.",
    answers=("orders/models/payments.py · Payment", "orders/payments.py · charge"),
    test="tests/orders/test_payments.py",
    docs="tour/order.md",
)

TWICE = 5


def naive_check_then_save(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    orders = rows.place_many(TWICE)
    for order in orders:
        naive.process_pending_order.delay(order.pk)
        naive.process_pending_order.delay(order.pk)
    lab.say(f"{TWICE} orders are placed, and each message is delivered twice.", placed=TWICE)
    lab.until(lambda: lab.results() == 2 * TWICE, "all tasks")
    return judged(lab, orders)


def ours_check_then_save(lab: Arena) -> Numbers:
    lab.common(OURS)
    orders = rows.place_many(TWICE)
    for order in orders:
        tasks.process_order.delay(order_id=order.pk)
        tasks.process_order.delay(order_id=order.pk)
    lab.say(f"{TWICE} orders are placed, and each message is delivered twice.", placed=TWICE)
    lab.until(lambda: rows.completed(*orders) == TWICE and not lab.length("orders"), "all orders", sweep=True)
    return judged(lab, orders)


def judged(lab: Arena, orders: list[Order]) -> Numbers:
    charged = lab.charges(*rows.references(orders))
    lab.say(f"The provider has charged {charged} times.")
    return lab.count(ended=rows.completed(*orders), charged=charged, doubled=charged - len(orders))


experiment(
    "check-then-save",
    "Read the status, compare, save",
    practice="Look whether the order is still pending, then set it to processing.",
    fault="Each message is delivered twice, at the same moment.",
    naive=Side(
        naive_check_then_save,
        (naive.process_pending_order,),
        "if order.status != Status.PENDING",
        {"placed": exactly(TWICE), "doubled": at_least(1)},
    ),
    ours=Side(
        ours_check_then_save,
        (OrderQuerySet.move,),
        "self.filter(status__in=MAY_BECOME[to])",
        {"placed": exactly(TWICE), "ended": exactly(TWICE), "charged": exactly(TWICE), "doubled": exactly(0)},
    ),
    why="Both deliveries read *pending*, and both charge. Ours is one UPDATE with the status in its WHERE: the number "
    "of rows that it changed says who won.",
    answers=("orders/models/orders.py · move", "durable/leases.py · claim"),
    test="tests/orders/test_models.py",
    docs="patterns/index.md",
)


def naive_item_by_item(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    order = rows.place(lamp_and_last_chair())
    stock.reserve.delay(order.pk)
    lab.until(lambda: lab.results() == 1, "the task")
    return vanished(lab)


def ours_item_by_item(lab: Arena) -> Numbers:
    lab.common(OURS)
    order = rows.place(lamp_and_last_chair())
    tasks.process_order.delay(order_id=order.pk)
    lab.until(lambda: Order.objects.filter(pk=order.pk, status=Status.REJECTED).exists(), "the order", sweep=True)
    return vanished(lab)


def lamp_and_last_chair() -> dict[Product, int]:
    return {rows.product(stock=10, sku="LAMP"): 1, rows.product(stock=1, sku="CHAIR"): 2}


def vanished(lab: Arena) -> Numbers:
    lamps = Product.objects.get(sku="LAMP").stock
    lab.say(f"There are not enough chairs: the order fails. Of ten lamps {lamps} are left.", placed=1)
    return lab.count(stock=lamps, vanished=10 - lamps)


experiment(
    "stock-item-by-item",
    "Stock reserved item by item",
    practice="Go through the items, and take each from the stock.",
    fault="There is not enough of the second item.",
    naive=Side(
        naive_item_by_item,
        (stock.reserve,),
        "raise OutOfStock",
        {"placed": exactly(1), "vanished": exactly(1)},
    ),
    ours=Side(
        ours_item_by_item, (services.reserve,), "@transaction.atomic", {"placed": exactly(1), "vanished": exactly(0)}
    ),
    why="The first item stays reserved for an order that failed, forever. Ours reserves an order as a whole, in one "
    "transaction, or rejects it.",
    answers=("orders/services.py · reserve", "orders/services.py · release"),
    test="tests/orders/test_services.py",
    docs="tour/order.md",
)

SOUGHT, THERE = 20, 10


def naive_oversold(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    orders = rows.place_many(SOUGHT, stock=THERE)
    for order in orders:
        stock.reserve.delay(order.pk)
    lab.say(f"{SOUGHT} people want one of {THERE} lamps.", placed=SOUGHT)
    lab.until(lambda: lab.results() == SOUGHT, "all tasks")
    return oversold(lab)


def ours_oversold(lab: Arena) -> Numbers:
    lab.common(OURS)
    orders = rows.place_many(SOUGHT, stock=THERE)
    for order in orders:
        tasks.process_order.delay(order_id=order.pk)
    lab.say(f"{SOUGHT} people want one of {THERE} lamps.", placed=SOUGHT)
    lab.until(lambda: not Order.objects.open().exists(), "all orders", sweep=True)
    return oversold(lab)


def oversold(lab: Arena) -> Numbers:
    sold, left = rows.completed_in_all(), Product.objects.get().stock
    lab.say(f"{sold} are sold, and {left} are left.")
    return lab.count(sold=sold, stock=left)


experiment(
    "oversold",
    "Read the stock, subtract, save",
    practice="Check the stock in Python, and save what is left.",
    fault=f"{SOUGHT} people want one of the last {THERE}; two processes work side by side.",
    naive=Side(
        naive_oversold, (stock.reserve,), "product.stock -=", {"placed": exactly(SOUGHT), "sold": at_least(THERE + 1)}
    ),
    ours=Side(
        ours_oversold,
        (services.reserve, OrderQuerySet.lock_with_stock),
        "FOR NO KEY UPDATE OF product",
        {"placed": exactly(SOUGHT), "sold": exactly(THERE), "stock": exactly(0)},
    ),
    why="Both read the same number, and one sale is not counted. Ours reads under a lock, in a fixed order, and a "
    "constraint of the database keeps the stock from falling below zero.",
    answers=("orders/services.py · reserve", "orders/models/orders.py · lock_with_stock"),
    test="tests/faults/test_last_item.py",
    docs="tour/order.md",
)
