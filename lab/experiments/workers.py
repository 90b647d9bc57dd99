"""Workers that die, hang or are replaced."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import psutil
from django.utils import timezone

from durable.leases import LeasedQuerySet
from durable.task import Task
from lab import marks, rows
from lab.arena import NAIVE, OURS, Arena, Worker
from lab.experiment import Numbers, Side, at_least, exactly, experiment
from lab.experiments.deliveries import QUICK, finish
from lab.experiments.retries import asked
from lab.naive import orders as naive
from lab.naive import workers as naive_workers
from myproject.celery import app
from orders import services, tasks
from orders.models import Card, Order, OrderQuerySet, Status

HOLDS = {"placed": exactly(1), "ended": exactly(1), "lost": exactly(0), "charged": exactly(1)}


def processing(order: Order) -> bool:
    return Order.objects.filter(pk=order.pk, status=Status.PROCESSING).exists()


# --- The worker is killed ---


def killed(lab: Arena, side: str, worker: Worker, order: Order) -> Numbers:
    """Kill the worker in the middle of the order, and let another one come."""
    lab.until(lambda: processing(order), "the worker to be at it")
    lab.say("The worker is at it.", placed=1)
    worker.kill()
    lab.say("The worker is killed with all its processes; another one comes.")
    return after_the_death(lab, side, order)


def after_the_death(lab: Arena, side: str, order: Order, conf: Mapping[str, Any] | None = None) -> Numbers:
    with lab.worker(side, conf=conf) if conf else nullcontext(lab.common(side)):
        finish(lab, side, lambda: rows.completed(order), 1)
        ended, open_ = rows.completed(order), int(processing(order))
        return lab.count(ended=ended, waiting=open_, lost=1 - ended, charged=lab.charges(order.reference))


def naive_killed(lab: Arena) -> Numbers:
    worker = lab.common(NAIVE)
    [order] = rows.place_many(1, card=Card.SLOW)
    naive.process_order.delay(order.pk)
    return killed(lab, NAIVE, worker, order)


def ours_killed(lab: Arena) -> Numbers:
    worker = lab.common(OURS)
    [order] = rows.place_many(1, card=Card.SLOW)
    tasks.process_order.delay(order_id=order.pk)
    return killed(lab, OURS, worker, order)


experiment(
    "killed-worker",
    "Acknowledged before the work, which is Celery's default",
    practice="Leave acknowledgement as it is.",
    fault="kill -9 of the whole worker while it works on an order.",
    naive=Side(
        naive_killed,
        (naive.process_order,),
        "@app.task",
        {"placed": exactly(1), "ended": exactly(0), "lost": exactly(1)},
    ),
    ours=Side(ours_killed, ("CELERY_TASK_ACKS_LATE", LeasedQuerySet.claim), "_take(named, free", HOLDS),
    why="The message was acknowledged when the worker took it, so nothing delivers it again. Ours is acknowledged "
    "after the work; and even without the message, the lease of the row ends and another worker may claim it.",
    answers=("myproject/settings.py · CELERY_TASK_ACKS_LATE", "durable/leases.py · claim"),
    test="tests/faults/test_kills.py",
    docs="patterns/faults.md",
)


def naive_acks_late(lab: Arena) -> Numbers:
    [order] = rows.place_many(1)
    with lab.worker(NAIVE, conf=QUICK) as worker:
        naive_workers.charge_late.delay(order.pk)
        return killed_after_charge(lab, NAIVE, worker, order, QUICK)


def ours_acks_late(lab: Arena) -> Numbers:
    worker = lab.common(OURS)
    [order] = rows.place_many(1)
    lab.fault("drop_answer", count=1)
    tasks.process_order.delay(order_id=order.pk)
    return killed_after_charge(lab, OURS, worker, order)


def killed_after_charge(
    lab: Arena, side: str, worker: Worker, order: Order, conf: Mapping[str, Any] | None = None
) -> Numbers:
    lab.until(lambda: lab.charges(order.reference), "the charge")
    lab.say("The provider has charged; the row does not say so yet.", placed=1)
    worker.kill()
    lab.say("The worker is killed with all its processes; another one comes.")
    return after_the_death(lab, side, order, conf)


experiment(
    "late-ack-without-idempotence",
    "Late acknowledgement for a task that cannot be repeated",
    practice="Set acks_late, so that nothing is lost.",
    fault="kill -9 of the whole worker after the charge, before the row says so.",
    naive=Side(naive_acks_late, (naive_workers.charge_late,), "acks_late=True", {"charged": at_least(2)}),
    ours=Side(ours_acks_late, (services.process_orders, services.settle), "payments.charge_all(attempts)", HOLDS),
    why="The message comes back, and the task runs from the top: the money moves twice. Ours goes on from what its "
    "rows say, and asks the provider by the same key.",
    answers=("orders/services.py · process_orders", "myproject/settings.py · CELERY_TASK_RETRY_ON_WORKER_LOST"),
    test="tests/faults/test_kills.py",
    docs="patterns/faults.md",
)


def naive_skipped(lab: Arena) -> Numbers:
    [order] = rows.place_many(1, card=Card.SLOW)
    conf = QUICK | {"task_acks_late": True}
    with lab.worker(NAIVE, conf=conf) as worker:
        naive.process_pending_order.delay(order.pk)
        lab.until(lambda: processing(order), "the worker to be at it")
        lab.say("The worker is at it.", placed=1)
        worker.kill()
    lab.say("The worker is killed; another one gets the message again.")
    return after_the_death(lab, NAIVE, order, conf)


experiment(
    "skipped-because-processing",
    "An order that is processing is skipped, since it is not pending",
    practice="Acknowledge late, and let a second delivery skip what is not pending any more.",
    fault="kill -9 of the worker when it has set the order to processing.",
    naive=Side(
        naive_skipped,
        (naive.process_pending_order,),
        "if order.status != Status.PENDING",
        {"placed": exactly(1), "ended": exactly(0), "waiting": exactly(1)},
    ),
    ours=Side(ours_killed, (LeasedQuerySet.claim, OrderQuerySet.claim_with_others), "self.for_machine().claim", HOLDS),
    why="Every later delivery skips the order, so it never ends. Ours claims a row for a limited time: when that is "
    "over, another worker may claim it whatever its status.",
    answers=("durable/leases.py · claim", "orders/services.py · process_orders"),
    test="tests/test_fencing.py",
    docs="patterns/index.md",
)


def naive_poison(lab: Arena) -> Numbers:
    with lab.worker(NAIVE):
        naive_workers.take_all_memory.delay()
        lab.say("A task is queued that kills its process each time.", asked=1)
        lab.watch(20, lambda: {"runs": len(marks.left("runs"))})
        lab.say("Twenty seconds later it still runs.")
    return lab.numbers


def ours_poison(lab: Arena) -> Numbers:
    with lab.worker(OURS):
        app.send_task("lab.ours.take_all_memory", queue="default")
        lab.say("A task is queued that kills its process each time.", asked=1)
        lab.watch(12, lambda: {"runs": len(marks.left("runs"))})
        lab.say("Its retries are used up: it has failed.")
    return lab.numbers


experiment(
    "reject-on-worker-lost",
    "task_reject_on_worker_lost",
    practice="Give the message back when a process dies, so that nothing is lost.",
    fault="A task takes all memory, and the kernel kills its process.",
    naive=Side(
        naive_poison,
        (naive_workers.take_all_memory,),
        "reject_on_worker_lost=True",
        {"asked": exactly(1), "runs": at_least(4)},
    ),
    ours=Side(
        ours_poison,
        ("CELERY_TASK_RETRY_ON_WORKER_LOST", Task),
        "CELERY_TASK_RETRY_ON_WORKER_LOST",
        {"asked": exactly(1), "runs": exactly(3)},
    ),
    why="A poison message: it is redelivered at once, forever, and kills one process after another. Ours is a retry "
    "(CELERY_TASK_RETRY_ON_WORKER_LOST), which the task's max_retries bounds: two for the task of this "
    "experiment.",
    answers=(
        "myproject/settings.py · CELERY_TASK_RETRY_ON_WORKER_LOST",
        "durable/checks/traps.py · worker_loss_is_repeated_forever",
    ),
    test="tests/faults/test_kills.py",
    docs="patterns/faults.md",
)


# --- The worker hangs ---


def naive_hangs(lab: Arena) -> Numbers:
    worker = lab.common(NAIVE)
    [order] = rows.place_many(1, card=Card.SLOW)
    naive_workers.process_in_time.delay(order.pk)
    return hangs(lab, NAIVE, worker, order)


def ours_hangs(lab: Arena) -> Numbers:
    worker = lab.common(OURS)
    [order] = rows.place_many(1, card=Card.SLOW)
    tasks.process_order.delay(order_id=order.pk)
    return hangs(lab, OURS, worker, order)


def hangs(lab: Arena, side: str, worker: Worker, order: Order) -> Numbers:
    lab.until(lambda: processing(order), "the worker to be at it")
    for child in worker.children:
        child.suspend()
    lab.say("The process hangs.", placed=1)
    busy = {child.pid for child in worker.children}
    lab.until(lambda: not all(map(psutil.pid_exists, busy)), "the hard time limit")
    for child in worker.children:
        child.resume()
    lab.say("The hard time limit has killed it.")
    return after_the_death(lab, side, order)


experiment(
    "hard-limit-with-late-ack",
    "A hard time limit, and late acknowledgement against loss",
    practice="Set acks_late and a time limit.",
    fault="The process hangs until its hard time limit kills it.",
    naive=Side(
        naive_hangs,
        (naive_workers.process_in_time,),
        "time_limit=3",
        {"placed": exactly(1), "ended": exactly(0), "waiting": exactly(1)},
    ),
    ours=Side(ours_hangs, (tasks.process_order, tasks.check_pending_orders), "time_limit=LEASE_SECONDS,", HOLDS),
    why="A task that exceeds its hard limit is acknowledged as failed, and its row stays as it is. Ours hands the row "
    "to another worker: the lease is as long as the hard limit.",
    answers=("orders/tasks.py · LEASE_SECONDS", "durable/checks/traps.py · timeout_is_repeated_forever"),
    test="tests/faults/test_limits.py",
    docs="patterns/faults.md",
)


def naive_zombie(lab: Arena) -> Numbers:
    return zombie(lab, NAIVE, lambda order: naive_workers.take_over.delay(order.pk))


def ours_zombie(lab: Arena) -> Numbers:
    # Longer than the lease, so that the token is all that stops the first worker.
    limits = {"soft_time_limit": 50, "time_limit": 60}
    return zombie(lab, OURS, lambda order: tasks.process_order.apply_async(kwargs={"order_id": order.pk}, **limits))


def zombie(lab: Arena, side: str, queue: Callable[[Order], object]) -> Numbers:
    [order] = rows.place_many(1)
    with lab.worker(side) as first:
        freeze_in_the_charge(lab, first, order, queue)
        lab.say("The worker is frozen while it waits for the provider's answer.", placed=1)
        lab.until(lambda: not is_locked(order), "the end of the lock")
        with lab.worker(side) as second:
            freeze_in_the_charge(lab, second, order, queue)
            lab.say("Another worker has taken the order over, and is frozen, too.")
            return overtaken(lab, side, first, second, order)


def freeze_in_the_charge(lab: Arena, worker: Worker, order: Order, queue: Callable[[Order], object]) -> None:
    """Queue the order, and freeze the worker when the provider has its request and has not answered yet."""
    before = asked(lab, "latency")
    lab.fault("latency", count=1, seconds=2)
    queue(order)
    lab.until(lambda: asked(lab, "latency") > before, "the charge")
    worker.freeze()


def overtaken(lab: Arena, side: str, first: Worker, second: Worker, order: Order) -> Numbers:
    first.thaw()
    lab.say("The first worker wakes up, and goes on.")
    lab.patiently(lambda: bool(rows.completed(order)), 6)
    lab.count(overwritten=rows.completed(order))
    second.thaw()
    lab.say("The second worker goes on.")
    lab.until(lambda: lab.mails(order.customer.email), "the mail", sweep=side == OURS)
    lab.watch(4, lambda: {"ended": rows.completed(order), "mailed": len(lab.mails(order.customer.email))})
    return lab.count(charged=lab.charges(order.reference))


def is_locked(order: Order) -> bool:
    return Order.objects.filter(pk=order.pk, due_at__gt=timezone.now()).exists()


experiment(
    "zombie",
    "A lock by time, without a token",
    practice="Take over what somebody else has locked too long ago.",
    fault="A worker is frozen longer than its lock lasts, and wakes up while another one has the order.",
    naive=Side(
        naive_zombie,
        (naive_workers.take_over,),
        "order.due_at > timezone.now()",
        {"placed": exactly(1), "overwritten": exactly(1), "charged": at_least(2), "mailed": at_least(2)},
    ),
    ours=Side(
        ours_zombie,
        (LeasedQuerySet.held, services.still_started),
        "lease.claimed_by: token",
        {
            "placed": exactly(1),
            "overwritten": exactly(0),
            "ended": exactly(1),
            "charged": exactly(1),
            "mailed": exactly(1),
        },
    ),
    why="The first worker still believes that it holds the row, and ends what another one is at. Ours has a fencing "
    "token in the row, new for every claim, and a write that does not find its own changes nothing.",
    answers=("durable/leases.py · held", "orders/services.py · still_started"),
    test="tests/test_fencing.py",
    docs="patterns/index.md",
)


# --- A deploy ---


def naive_deploy(lab: Arena) -> Numbers:
    [order] = rows.place_many(1)
    lab.fault("latency", count=1, seconds=8)
    with lab.worker(NAIVE) as worker:
        naive.process_order.delay(order.pk)
        deploy(lab, worker, order)
    return after_the_death(lab, NAIVE, order)


def ours_deploy(lab: Arena) -> Numbers:
    [order] = rows.place_many(1)
    lab.fault("latency", count=1, seconds=8)
    with lab.worker(OURS, REMAP_SIGTERM="SIGQUIT", SOFT_SHUTDOWN_SECONDS="1", STRIPE_TIMEOUT_SECONDS="20") as worker:
        tasks.process_order.apply_async(kwargs={"order_id": order.pk}, soft_time_limit=50, time_limit=60)
        deploy(lab, worker, order)
    return after_the_death(lab, OURS, order)


def deploy(lab: Arena, worker: Worker, order: Order) -> None:
    """Send TERM, and KILL after three seconds."""
    lab.until(lambda: processing(order), "the worker to be at it")
    lab.say("A deploy: the worker is sent TERM in the middle of an order.", placed=1)
    worker.process.terminate()
    lab.patiently(lambda: not worker.is_alive, 3)
    lab.say("It is still there after three seconds, and killed." if worker.is_alive else "It has left by itself.")
    worker.kill()


experiment(
    "deploy-in-the-middle",
    "A deploy while tasks run",
    practice="Leave the signals of the container as they are.",
    fault="TERM in the middle of an order that takes eight seconds, and KILL three seconds later.",
    naive=Side(
        naive_deploy,
        (naive.process_order,),
        "charge(order)",
        {"placed": exactly(1), "ended": exactly(0), "lost": exactly(1)},
    ),
    ours=Side(
        ours_deploy,
        ("CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT", tasks.process_order),
        "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT",
        HOLDS,
    ),
    why="A worker waits for its tasks when it is sent TERM; what lasts longer than the grace period is killed. Ours "
    "ends in time (REMAP_SIGTERM, CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT), hands its message back, and the task may "
    "be repeated.",
    answers=("myproject/settings.py · CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT",),
    test="tests/operations/test_soft_shutdown.py",
    docs="operations/deploys.md",
)
