"""What happens between the click, the commit and the message."""

import time

from django.db import transaction
from kombu.exceptions import KombuError

from durable.task import Task, survive
from lab import faults, rows
from lab.arena import NAIVE, OURS, Arena
from lab.experiment import Numbers, Side, at_least, at_most, exactly, experiment
from lab.naive import data
from lab.naive import orders as naive
from orders import tasks
from orders.models import Order, Status

COUNT = 5


def naive_delay_before_commit(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    lamp = rows.product()
    for number in range(COUNT):
        order = rows.unsaved(lamp)
        naive.checkout(order)
        lab.say(f"Checkout {number + 1}: the transaction is committed.", placed=number + 1)
    lab.until(lambda: lab.results() == COUNT, "all tasks")
    failed = lab.results("FAILURE")
    lab.say(f"{failed} tasks found no order: they were faster than the commit.")
    return lab.count(ended=rows.completed_in_all(), lost=failed)


def ours_delay_before_commit(lab: Arena) -> Numbers:
    lab.common(OURS)
    orders = []
    lamp = rows.product()
    for number in range(COUNT):
        with transaction.atomic():
            order = rows.place({lamp: 1})
            tasks.process_order.delay_on_commit(order_id=order.pk)
            rows.wait_in_database(0.5)
        orders.append(order)
        lab.say(f"Checkout {number + 1}: the transaction is committed.", placed=number + 1)
    lab.until(lambda: rows.completed(*orders) == COUNT, "all orders", sweep=True)
    lab.say("Each task began after its commit.")
    return lab.count(ended=rows.completed(*orders), lost=COUNT - rows.completed(*orders))


experiment(
    "delay-before-commit",
    "delay() in the view that has just saved the row",
    practice="Queue the task within the transaction that writes its row.",
    fault="The rest of the request takes half a second, as any page may.",
    naive=Side(
        naive_delay_before_commit,
        (naive.checkout, naive.process_order),
        "process_order.delay(order.pk)",
        {"placed": exactly(COUNT), "ended": exactly(0), "lost": exactly(COUNT)},
    ),
    ours=Side(
        ours_delay_before_commit,
        (Task.apply_async_on_commit,),
        "transaction.on_commit(publish, robust=True)",
        {"placed": exactly(COUNT), "ended": exactly(COUNT), "lost": exactly(0)},
    ),
    why="Inside a transaction the worker may be faster than the commit and find no row; after a rollback it works on "
    "one that never was. Ours leaves the message to the commit.",
    answers=(
        "durable/task.py · apply_async_on_commit",
        "orders/views.py · checkout",
        "accounts/adapter.py · save_user",
    ),
    test="tests/orders/test_views.py",
    docs="tour/order.md",
)


def naive_broker_away(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    lamp, errors = rows.product(), 0
    with faults.away(lab):
        lab.say("Redis is stopped.")
        for _ in range(COUNT):
            order = rows.unsaved(lamp)
            try:
                naive.checkout_on_commit(order)
            except (OSError, KombuError) as error:
                errors += 1
                lab.say(f"The visitor sees an error: {type(error).__name__}.", errors=errors)
    lab.say("Redis is back.", placed=Order.objects.count())
    lab.watch(5, lambda: {"ended": rows.completed_in_all()})
    return lab.count(lost=Order.objects.filter(status=Status.PENDING).count(), errors=errors)


def ours_broker_away(lab: Arena) -> Numbers:
    lab.common(OURS)
    lamp, errors = rows.product(), 0
    with faults.away(lab):
        lab.say("Redis is stopped.", errors=0)
        for number in range(COUNT):
            with transaction.atomic():
                order = rows.place({lamp: 1})
                tasks.process_order.delay_on_commit(order_id=order.pk)
            lab.say("The visitor sees the order's page.", placed=number + 1)
    lab.say("Redis is back; the sweep finds what was not queued.")
    lab.until(lambda: rows.completed_in_all() == COUNT, "all orders", sweep=True)
    return lab.count(ended=rows.completed_in_all(), lost=0, errors=errors)


experiment(
    "broker-away",
    "on_commit, with the broker away",
    practice="Queue the task by transaction.on_commit and delay.",
    fault="Redis is stopped while five people check out, and started again.",
    naive=Side(
        naive_broker_away,
        (naive.checkout_on_commit,),
        "process_order.delay(order.pk)",
        {"placed": exactly(COUNT), "errors": exactly(COUNT), "lost": exactly(COUNT)},
    ),
    ours=Side(
        ours_broker_away,
        (Task.apply_async_on_commit, tasks.check_pending_orders),
        "survive(partial(context.run",
        {"placed": exactly(COUNT), "errors": exactly(0), "ended": exactly(COUNT), "lost": exactly(0)},
    ),
    why="The order is committed, and then the error of the publish reaches the visitor as a page 500; no message "
    "comes later, so the order stays. Ours logs a warning, and the sweep queues each row that is overdue.",
    answers=("durable/task.py · survive", "durable/sweeps.py · sweep", "orders/tasks.py · check_pending_orders"),
    test="tests/orders/test_broker_away.py",
    docs="patterns/index.md",
)

FREEZE = 8


def naive_frozen(lab: Arena) -> Numbers:
    lab.rest(NAIVE)
    [order] = rows.place_many(1)
    with faults.frozen(lab, FREEZE):
        lab.say("Redis is frozen. Somebody clicks.", placed=1)
        begin = time.monotonic()
        naive.checkout_on_commit(order)
        lab.say("The page is there.", seconds=time.monotonic() - begin)
    return lab.numbers


def ours_frozen(lab: Arena) -> Numbers:
    lab.rest(OURS)
    [order] = rows.place_many(1)
    with faults.frozen(lab, FREEZE):
        lab.say("Redis is frozen. Somebody clicks.", placed=1)
        begin = time.monotonic()
        with transaction.atomic():
            order.save()
            tasks.process_order.delay_on_commit(order_id=order.pk)
        lab.say("The page is there.", seconds=time.monotonic() - begin)
    lab.common(OURS)
    lab.until(lambda: rows.completed(order), "the order", sweep=True)
    lab.say("Redis is back, and the sweep has found the order.")
    return lab.count(ended=1)


experiment(
    "frozen-broker",
    "A broker URL and nothing else",
    practice="Set CELERY_BROKER_URL.",
    fault=f"Redis is frozen for {FREEZE} seconds when somebody clicks: it takes connections, and does not answer.",
    naive=Side(
        naive_frozen,
        (naive.checkout_on_commit,),
        "process_order.delay(order.pk)",
        {"placed": exactly(1), "seconds": at_least(FREEZE - 1)},
    ),
    ours=Side(
        ours_frozen,
        (Task.apply_async_on_commit, survive),
        "except (KombuError, OSError)",
        {"placed": exactly(1), "ended": exactly(1), "seconds": at_most(FREEZE - 2)},
    ),
    why="Without timeouts the request waits for as long as Redis is frozen: here until it thaws, otherwise forever. "
    "Ours waits 0.7 seconds for each of at most three attempts, shows the page, and leaves the rest to the sweep.",
    answers=("myproject/transport/broker_url.py · REDIS", "durable/checks/traps.py · broker_may_take_forever"),
    test="tests/orders/test_broker_away.py",
    docs="operations/brokers.md",
)


def naive_object(lab: Arena) -> Numbers:
    lab.rest(NAIVE)
    [order] = rows.place_many(1)
    data.charge_given.delay(data.as_message(order))
    order.mark_cancelled()
    lab.say("The customer cancels while the message waits.", placed=1)
    lab.common(NAIVE)
    lab.until(lambda: lab.results() == 1, "the task")
    return lab.count(charged=lab.charges(order.reference))


def ours_object(lab: Arena) -> Numbers:
    lab.rest(OURS)
    [order] = rows.place_many(1)
    tasks.process_order.delay(order_id=order.pk)
    order.mark_cancelled()
    lab.say("The customer cancels while the message waits.", placed=1)
    lab.common(OURS)
    lab.until(lambda: not lab.length("orders"), "the task")
    lab.watch(2, lambda: {"charged": lab.charges(order.reference)})
    return lab.numbers


experiment(
    "object-instead-of-id",
    "The row itself in the message",
    practice="Pass the order, so that the task need not read it.",
    fault="The customer cancels the order while its message waits.",
    naive=Side(
        naive_object,
        (data.as_message, data.charge_given),
        'if order["status"] == "pending"',
        {"placed": exactly(1), "charged": exactly(1)},
    ),
    ours=Side(
        ours_object,
        (tasks.process_order,),
        "services.claim_orders(order_id",
        {"placed": exactly(1), "charged": exactly(0)},
    ),
    why="The message says what was true when it was written: a cancelled order is charged. Ours carries an id, and "
    "the task asks the row.",
    answers=("orders/tasks.py · process_order", "orders/services.py · claim_orders"),
    test="tests/test_tasks.py",
    docs="patterns/index.md",
)
