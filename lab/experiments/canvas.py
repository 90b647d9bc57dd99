"""Tasks that are combined: chain, chord, chunks."""

from collections.abc import Callable
from datetime import date

from celery import chain, chord
from celery.states import FAILURE
from django_celery_results.models import TaskResult

from lab import faults, marks, rows
from lab.arena import NAIVE, OURS, Arena
from lab.experiment import Numbers, Side, exactly, experiment
from lab.experiments.deliveries import finish
from lab.naive import orders as naive
from lab.naive import workers as naive_workers
from orders import services, tasks
from orders.models import Card, Order, Status
from reports import packs
from reports import tasks as reports
from reports.models import Pack, PackQuerySet


def naive_chain(lab: Arena) -> Numbers:
    def queue(order: Order) -> None:
        chain(naive.reserve.si(order.pk), naive.process_order.si(order.pk), naive.confirm.si(order.pk)).delay()

    return middle_dies(lab, NAIVE, queue)


def ours_chain(lab: Arena) -> Numbers:
    return middle_dies(lab, OURS, lambda order: tasks.process_order.delay(order_id=order.pk))


def middle_dies(lab: Arena, side: str, queue: Callable[[Order], object]) -> Numbers:
    worker = lab.common(side)
    [order] = rows.place_many(1, card=Card.SLOW)
    queue(order)
    lab.until(lambda: Order.objects.filter(pk=order.pk, status=Status.PROCESSING).exists(), "the charge")
    lab.say("The stock is reserved; the provider is being asked for the money.", placed=1)
    worker.kill()
    lab.say("The worker is killed with all its processes; another one comes.")
    lab.common(side)
    finish(lab, side, lambda: len(lab.mails(order.customer.email)), 1)
    ended = rows.completed(order)
    return lab.count(ended=ended, lost=1 - ended, mailed=len(lab.mails(order.customer.email)))


experiment(
    "chain-whose-middle-dies",
    "A chain of reserve, charge and mail",
    practice="Chain the steps of an order, each a task of its own.",
    fault="kill -9 of the whole worker in the middle step.",
    naive=Side(
        naive_chain,
        (naive.reserve, naive.process_order, naive.confirm),
        "def confirm",
        {"placed": exactly(1), "ended": exactly(0), "lost": exactly(1), "mailed": exactly(0)},
    ),
    ours=Side(
        ours_chain,
        (services.complete, tasks.check_pending_orders),
        "MAIL.fresh()",
        {"placed": exactly(1), "ended": exactly(1), "lost": exactly(0), "mailed": exactly(1)},
    ),
    why="What follows stands in the message of the step that died, and is gone with it: no mail, and nobody knows that "
    "one is owed. Ours is a status of the row; to complete an order and to owe its mail is one transaction.",
    answers=("orders/services.py · complete", "orders/tasks.py · check_pending_orders"),
    test="tests/faults/test_kills.py",
    docs="patterns/canvas.md",
)

PARTS = 3


def naive_chord(lab: Arena) -> Numbers:
    lab.rest(NAIVE)
    chord(naive_workers.write_part.s(number) for number in range(PARTS))(naive_workers.bundle.s())
    faults.double(lab, "celery")
    lab.say("A chord of three parts is queued; the message of the first is delivered twice.", asked=PARTS)
    with lab.worker(NAIVE, concurrency=1):
        lab.until(lambda: len(marks.left("taken")) == PARTS + 1, "all parts")
        lab.watch(4, lambda: {"ended": len(marks.left("bundled"))})
    return lab.count(runs=len(marks.left("taken")), ended=len(marks.left("bundled")))


def ours_chord(lab: Arena) -> Numbers:
    lab.rest(OURS)
    pack = packs.ask_for_pack(rows.person(), date(2026, 1, 1))
    members = packs.open_members(pack)
    for member in members:
        reports.generate_report.delay(report_id=str(member))
    faults.double(lab, "reports")
    lab.say(
        f"A pack of {len(members)} reports is queued; the message of the first is delivered twice.", asked=len(members)
    )
    lab.common(OURS)
    lab.until(lambda: Pack.objects.filter(pk=pack.pk, status="ready").exists(), "the pack")
    lab.say("The pack is ready.")
    return lab.count(ended=Pack.objects.filter(pk=pack.pk, status="ready", missing_count=0).count())


experiment(
    "chord-delivered-twice",
    "A chord, with results in the database",
    practice="Fan out by a group, and bundle by the chord's body.",
    fault="The message of one part is delivered twice.",
    naive=Side(
        naive_chord,
        (naive_workers.write_part, naive_workers.bundle),
        "def bundle",
        {"asked": exactly(PARTS), "runs": exactly(PARTS + 1), "ended": exactly(0)},
    ),
    ours=Side(
        ours_chord, (PackQuerySet.claim_complete, reports.generate_pack), "claim_complete", {"ended": exactly(1)}
    ),
    why="The chord counts parts down in a row. The second delivery counts too, so the counter ends before the last "
    "part does, and the body never runs. Ours counts rows: a pack is claimed when no report of it is open.",
    answers=("reports/packs.py · write_pack", "reports/tasks.py · generate_pack"),
    test="tests/reports/test_packs.py",
    docs="decisions/0003-no-chord.md",
)

MANY, BAD = 10, 5


def naive_chunks(lab: Arena) -> Numbers:
    lab.rest(NAIVE)
    orders = place_with_a_bad_one(lab)
    naive.process_order.chunks([(order.pk,) for order in orders], MANY).apply_async()
    lab.common(NAIVE)
    lab.until(TaskResult.objects.filter(status=FAILURE).exists, "the failure")
    return count_ends(lab, orders)


def ours_chunks(lab: Arena) -> Numbers:
    lab.rest(OURS)
    orders = place_with_a_bad_one(lab)
    tasks.process_order.delay(order_id=orders[0].pk)
    lab.common(OURS)
    lab.until(lambda: not Order.objects.open().exists(), "the end", sweep=True)
    return count_ends(lab, orders)


def place_with_a_bad_one(lab: Arena) -> list[Order]:
    lamp = rows.product()
    orders = [rows.place({lamp: 1}, Card.DECLINED if n == BAD else Card.VISA) for n in range(1, MANY + 1)]
    lab.say(f"{MANY} orders are placed and queued by one message; the card of number {BAD} is declined.", placed=MANY)
    return orders


def count_ends(lab: Arena, orders: list[Order]) -> Numbers:
    ended = rows.completed(*orders)
    failed = Order.objects.filter(status=Status.PAYMENT_FAILED).count()
    lab.say("The message has been dealt with.")
    return lab.count(ended=ended, failed=failed, waiting=MANY - ended - failed)


experiment(
    "chunks-with-a-bad-one",
    "Chunks, to save messages",
    practice="Put ten calls into one message by chunks().",
    fault="One call of the ten fails: a card is declined.",
    naive=Side(
        naive_chunks,
        (naive.process_order,),
        "charge(order)",
        {"placed": exactly(MANY), "ended": exactly(BAD - 1), "waiting": exactly(MANY - BAD + 1)},
    ),
    ours=Side(
        ours_chunks,
        (services.process_orders, services.settle),
        "PermanentError()",
        {"placed": exactly(MANY), "ended": exactly(MANY - 1), "failed": exactly(1), "waiting": exactly(0)},
    ),
    why="Celery runs the calls of a chunk in a loop, and the first error ends the loop. In ours the message names one "
    "row, the task claims others that wait, and each of them has its own outcome.",
    answers=("orders/services.py · settle", "orders/tasks.py · process_order"),
    test="tests/orders/test_services.py",
    docs="patterns/canvas.md",
)
