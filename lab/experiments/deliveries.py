"""Messages that are lost, late, or delivered twice."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from durable.leases import HasLease
from lab import faults, rows
from lab.arena import NAIVE, OURS, Arena, Worker
from lab.experiment import Numbers, Side, at_least, exactly, experiment
from lab.naive import orders as naive
from lab.naive import workers as naive_workers
from orders import import_services, tasks
from orders.models import ImportStatus, Order, OrderQuerySet, ProductImport

MANY = 10
# Redis delivers what was not acknowledged after an hour; here after five seconds, so that nobody has to wait.
SOON = {"visibility_timeout": 5, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
QUICK: dict[str, Any] = {"broker_transport_options": SOON}


def naive_wipe(lab: Arena) -> Numbers:
    lab.rest(NAIVE)
    return wipe(lab, NAIVE, lambda order: naive.process_order.delay(order.pk))


def ours_wipe(lab: Arena) -> Numbers:
    lab.rest(OURS)
    return wipe(lab, OURS, lambda order: tasks.process_order.delay(order_id=order.pk))


def wipe(lab: Arena, side: str, queue: Callable[[Order], object]) -> Numbers:
    orders = rows.place_many(MANY)
    for order in orders:
        queue(order)
    lab.say(f"{MANY} orders are placed; their messages wait for a worker.", placed=MANY)
    lab.say(f"Redis is wiped with {faults.wipe(lab)} messages.")
    lab.common(side)
    finish(lab, side, lambda: rows.completed(*orders), MANY)
    return lab.count(ended=rows.completed(*orders), lost=MANY - rows.completed(*orders))


def finish(lab: Arena, side: str, ended: Callable[[], int], wanted: int) -> None:
    """Wait for the end: ours has a sweep, the other side has some seconds."""
    if side == NAIVE:
        lab.watch(9, lambda: {"ended": ended()})
    else:
        lab.until(lambda: ended() == wanted, "the end", sweep=True)
        lab.say("All have ended.")


experiment(
    "wiped-redis",
    "The message is the only place where the work stands",
    practice="Queue a task for each order, and leave the rest to the broker.",
    fault="Redis loses everything, as after a restart without a disk.",
    naive=Side(
        naive_wipe,
        (naive.process_order,),
        "def process_order",
        {"placed": exactly(MANY), "ended": exactly(0), "lost": exactly(MANY)},
    ),
    ours=Side(
        ours_wipe,
        (tasks.check_pending_orders,),
        "Sweep(orders, process_order",
        {"placed": exactly(MANY), "ended": exactly(MANY), "lost": exactly(0)},
    ),
    why="What stood in a message alone is gone. Ours stands in a row; the message only says that there is one, and "
    "the sweep says it again.",
    answers=("durable/sweeps.py · sweep", "orders/tasks.py · check_pending_orders"),
    test="tests/faults/test_broker.py",
    docs="patterns/index.md",
)


# --- Later ---


def naive_eta(lab: Arena) -> Numbers:
    [order] = rows.place_many(1)
    with lab.worker(NAIVE, conf=QUICK), lab.worker(NAIVE, conf=QUICK):
        naive.process_order.apply_async((order.pk,), countdown=12)
        lab.say("The order is to be charged in twelve seconds; Redis waits five for an acknowledgement.", placed=1)
        lab.watch(18, lambda: {"charged": lab.charges(order.reference)})
    return lab.numbers


def ours_eta(lab: Arena) -> Numbers:
    lab.common(OURS)
    [order] = rows.place_many(1)
    Order.objects.filter(pk=order.pk).update(due_at=timezone.now() + timedelta(seconds=10))
    lab.say("The order is due in ten seconds; no message waits for that.", placed=1)
    lab.watch(14, lambda: {"charged": lab.charges(order.reference)}, sweep=True)
    return lab.count(ended=rows.completed(order))


experiment(
    "eta-beyond-the-visibility-timeout",
    "A countdown longer than the visibility timeout",
    practice="Queue what is to happen tomorrow today, by eta or countdown.",
    fault="The countdown is longer than Redis waits for an acknowledgement.",
    naive=Side(
        naive_eta,
        (naive.process_order,),
        "def process_order",
        {"placed": exactly(1), "charged": at_least(2)},
    ),
    ours=Side(
        ours_eta,
        (HasLease.put_off, tasks.check_pending_orders),
        "self.lease.until(pause)",
        {"placed": exactly(1), "ended": exactly(1), "charged": exactly(1)},
    ),
    why="A message with a countdown waits in a worker, unacknowledged, and Redis delivers it again and again; each "
    "copy runs. Ours writes the time into the row, and the sweep queues it when it is due.",
    answers=("durable/leases.py · put_off", "durable/sweeps.py · sweep"),
    test="tests/test_queues.py",
    docs="decisions/0007-visibility-timeout.md",
)


def naive_revoke(lab: Arena) -> Numbers:
    worker = lab.common(NAIVE)
    [order] = rows.place_many(1)
    queued = naive.process_order.apply_async((order.pk,), countdown=8)
    order.mark_cancelled()
    queued.revoke()
    lab.say("The customer cancels: the task is revoked.", placed=1)
    return restarted(lab, NAIVE, worker, order)


def ours_revoke(lab: Arena) -> Numbers:
    worker = lab.common(OURS)
    [order] = rows.place_many(1)
    tasks.process_order.apply_async(kwargs={"order_id": order.pk}, countdown=8)
    order.mark_cancelled()
    lab.say("The customer cancels: the row is cancelled.", placed=1)
    return restarted(lab, OURS, worker, order)


def restarted(lab: Arena, side: str, worker: Worker, order: Order) -> Numbers:
    worker.stop()
    lab.common(side)
    lab.say("The worker has been restarted.")
    lab.watch(10, lambda: {"charged": lab.charges(order.reference)})
    return lab.numbers


experiment(
    "revoked-and-restarted",
    "revoke() as the way to cancel",
    practice="Keep the task's id, and revoke it when the customer cancels.",
    fault="The worker is restarted before the task is due.",
    naive=Side(naive_revoke, (naive.process_order,), "charge(order)", {"placed": exactly(1), "charged": exactly(1)}),
    ours=Side(
        ours_revoke,
        (Order.mark_cancelled, OrderQuerySet.move),
        "self.filter(status__in=MAY_BECOME[to])",
        {"placed": exactly(1), "charged": exactly(0)},
    ),
    why="Workers keep what is revoked in memory; one that was restarted knows nothing of it, and charges a cancelled "
    "order. Ours cancels the row, and the task claims no row that is cancelled.",
    answers=("orders/models/orders.py · mark_cancelled", "orders/models/orders.py · move"),
    test="tests/orders/test_models.py",
    docs="tour/order.md",
)


# --- Callbacks ---

LINES = 30_000
CSV = "name,sku,price,stock,category\n" + "".join(f"Lamp {n},LAB-{n},9.50,1,Lab\n" for n in range(LINES))


def upload() -> ProductImport:
    file = SimpleUploadedFile("products.csv", CSV.encode())
    return import_services.start_import(rows.person(), file, rows.token())


def naive_link_error(lab: Arena) -> Numbers:
    row = upload()
    callback = naive_workers.mark_failed.s(import_id=str(row.pk))
    naive_workers.import_products.apply_async((str(row.pk),), link_error=callback)
    return import_killed(lab, NAIVE, row)


def ours_link_error(lab: Arena) -> Numbers:
    row = upload()
    tasks.import_products.apply_async(kwargs={"import_id": str(row.pk)}, **tasks.import_options(row.pk))
    return import_killed(lab, OURS, row)


def import_killed(lab: Arena, side: str, row: ProductImport) -> Numbers:
    worker, of_it = lab.common(side), ProductImport.objects.filter(pk=row.pk)
    lab.until(lambda: of_it.filter(status=ImportStatus.RUNNING).exists(), "the import to run")
    lab.say(f"{LINES:,} products are being imported.", asked=1)
    worker.kill()
    lab.say("The worker is killed; another one comes.")
    lab.common(side)
    ended = of_it.filter(status__in=[ImportStatus.DONE, ImportStatus.FAILED])
    if side == NAIVE:
        lab.watch(6, lambda: {"ended": ended.count()})
    else:
        lab.until(ended.exists, "the import", sweep=tasks.check_unfinished_imports)
    lab.say("The import has ended." if ended.exists() else "The import runs, it says, and nobody is at it.")
    return lab.count(ended=ended.count(), waiting=1 - ended.count())


experiment(
    "link-error-alone",
    "link_error as the only way to learn of a failure",
    practice="Mark the row as failed by an error callback.",
    fault="kill -9 of the worker in the middle of an import.",
    naive=Side(
        naive_link_error,
        (naive_workers.import_products, naive_workers.mark_failed),
        "by link_error",
        {"asked": exactly(1), "ended": exactly(0), "waiting": exactly(1)},
    ),
    ours=Side(
        ours_link_error,
        (tasks.check_unfinished_imports, tasks.import_options),
        "Sweep(due, import_products",
        {"asked": exactly(1), "ended": exactly(1), "waiting": exactly(0)},
    ),
    why="The callback runs in the worker that notices the failure: what dies with that leaves the row open, and "
    "nobody is told. Ours has the callback for speed, and the sweep for certainty.",
    answers=("orders/tasks.py · handle_import_failure", "orders/tasks.py · check_unfinished_imports"),
    test="tests/orders/test_import_services.py",
    docs="patterns/index.md",
)
