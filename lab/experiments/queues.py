"""Who waits behind whom."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from lab import marks, rows
from lab.arena import NAIVE, OURS, Arena
from lab.experiment import Numbers, Side, at_least, at_most, exactly, experiment
from lab.naive import orders as naive
from lab.naive import workers as naive_workers
from myproject import queues
from myproject.celery import app
from orders import payments, services, tasks

LONG, SHORT = 6, 7


def until_short_ones_ended(lab: Arena) -> Numbers:
    begin = time.monotonic()
    lab.until(lambda: sum(mark != "long" for mark in marks.left("taken")) == SHORT, "the short tasks")
    lab.say("All short tasks have ended.", ended=SHORT)
    return lab.count(seconds=time.monotonic() - begin)


def naive_prefetch(lab: Arena) -> Numbers:
    with lab.worker(NAIVE, concurrency=1), lab.worker(NAIVE, concurrency=1):
        naive_workers.take.delay("long", LONG)
        for number in range(SHORT):
            naive_workers.take.delay(str(number), 0.1)
        lab.say(f"One task of {LONG} s and {SHORT} short ones are queued for two workers.", asked=SHORT)
        return until_short_ones_ended(lab)


def ours_prefetch(lab: Arena) -> Numbers:
    with lab.worker(OURS, concurrency=1), lab.worker(OURS, concurrency=1):
        send_ours("long", LONG)
        for number in range(SHORT):
            send_ours(str(number), 0.1)
        lab.say(f"One task of {LONG} s and {SHORT} short ones are queued for two workers.", asked=SHORT)
        return until_short_ones_ended(lab)


def send_ours(name: str, seconds: float, queue: str = "default") -> None:
    app.send_task("lab.ours.take", kwargs={"name": name, "seconds": seconds}, queue=queue)


experiment(
    "prefetch",
    "Four messages taken in advance, which is Celery's default",
    practice="Leave worker_prefetch_multiplier as it is.",
    fault=f"A task of {LONG} seconds stands in front of short ones; another worker is idle.",
    naive=Side(
        naive_prefetch, (naive_workers.take,), "@app.task", {"ended": exactly(SHORT), "seconds": at_least(LONG - 2)}
    ),
    ours=Side(
        ours_prefetch,
        ("CELERY_WORKER_PREFETCH_MULTIPLIER",),
        "CELERY_WORKER_PREFETCH_MULTIPLIER",
        {"ended": exactly(SHORT), "seconds": at_most(LONG - 3)},
    ),
    why="The first worker has taken some of the short tasks in advance, and nobody else can have them until its long "
    "one ends. Ours takes one message at a time: CELERY_WORKER_PREFETCH_MULTIPLIER = 1.",
    answers=("myproject/settings.py · CELERY_WORKER_PREFETCH_MULTIPLIER",),
    test="tests/test_queues.py",
    docs="reference/index.md",
)

CROWD = 15


def naive_priority(lab: Arena) -> Numbers:
    def urgent(name: str) -> None:
        naive_workers.take.apply_async((name, 0), priority=9)

    return comes_last(lab, NAIVE, CROWD, lambda name: naive_workers.take.delay(name, 0.2), urgent)


def ours_priority(lab: Arena) -> Numbers:
    return comes_last(lab, OURS, CROWD, *ours(0.2, "orders"))


def ours(seconds: float, urgent: str) -> tuple[Callable[[str], None], Callable[[str], None]]:
    """Return what queues a task of the crowd, and what queues the urgent one into its own queue."""
    return partial(send_ours, seconds=seconds, queue="bulk"), partial(send_ours, seconds=0, queue=urgent)


def comes_last(
    lab: Arena, side: str, many: int, crowd: Callable[[str], object], urgent: Callable[[str], object]
) -> Numbers:
    """Queue a crowd, and then an urgent task; count how many of the crowd run before it."""
    lab.rest(side)
    for number in range(many):
        crowd(str(number))
    urgent("urgent")
    lab.say(f"{many:,} tasks are queued, and then an urgent one.", asked=many + 1)
    with lab.worker(side, concurrency=1):
        lab.until(lambda: "urgent" in marks.left("taken"), "the urgent task")
    before = marks.left("taken").index("urgent")
    lab.say(f"It ran after {before:,} of {many:,} others.")
    return lab.count(before=before)


experiment(
    "priority-on-redis",
    "Task priorities, on Redis",
    practice="Give the urgent task priority=9, as on RabbitMQ.",
    fault=f"{CROWD:,} tasks wait already.",
    naive=Side(naive_priority, (naive_workers.take,), "def take", {"before": at_least(CROWD - 2)}),
    ours=Side(ours_priority, (queues.routes,), 'verbs = {f"*.tasks.{verb}_*"', {"before": at_most(3)}),
    why="On Redis 0 is the highest priority: the urgent task runs last. Ours has a queue for each nature of work, and "
    "a worker that reads several takes one message of each in turn.",
    answers=("myproject/queues.py · QUEUES", "myproject/settings.py · CELERY_TASK_ROUTES"),
    test="tests/test_queues.py",
    docs="operations/scale.md",
)

MAILING = 60


def naive_one_queue(lab: Arena) -> Numbers:
    send = naive_workers.take.delay
    return comes_last(lab, NAIVE, MAILING, lambda name: send(name, 0.1), lambda name: send(name, 0))


def ours_one_queue(lab: Arena) -> Numbers:
    return comes_last(lab, OURS, MAILING, *ours(0.1, "mail"))


experiment(
    "one-queue",
    "One queue for all",
    practice="Leave all tasks in the default queue.",
    fault=f"A mailing of {MAILING} mails is queued, and then somebody asks for a new password.",
    naive=Side(naive_one_queue, (naive_workers.take,), "@app.task", {"before": at_least(MAILING - 3)}),
    ours=Side(ours_one_queue, (queues.routes,), 'verbs = {f"*.tasks.{verb}_*"', {"before": at_most(6)}),
    why="Who wants to log in waits for the whole mailing. Ours puts a mailing to everybody into the queue *bulk*, and "
    "a mail that somebody waits for into *mail*.",
    answers=("myproject/queues.py · QUEUES", "myproject/settings.py · CELERY_TASK_ROUTES"),
    test="tests/test_queues.py",
    docs="operations/scale.md",
)

BURST, AFTER = 1000, 10


def naive_burst(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    return burst(lab, naive.process_order.delay, positional=True)


def ours_burst(lab: Arena) -> Numbers:
    lab.common(OURS)
    return burst(lab, tasks.process_order.delay, positional=False)


def burst(lab: Arena, queue: Any, positional: bool) -> Numbers:
    ids = rows.place_in_bulk(BURST)
    lab.fault("latency", rate=1, seconds=0.3)
    lab.say("The provider takes a third of a second for a charge.", placed=BURST)
    for pk in ids:
        if positional:
            queue(pk)
        else:
            queue(order_id=pk)
    lab.say(f"{BURST:,} orders are queued for a worker of two processes.")
    lab.watch(AFTER, lambda: {"ended": rows.completed_in_all()})
    lab.say(f"{AFTER} seconds later.")
    return lab.count(ended=rows.completed_in_all())


experiment(
    "burst",
    "One task, one order",
    practice="Each task charges its order and waits for the answer.",
    fault=f"A burst of {BURST:,} orders, and a provider that takes a third of a second. Seen after {AFTER} seconds.",
    naive=Side(naive_burst, (naive.process_order,), "charge(order)", {"placed": exactly(BURST), "ended": at_most(90)}),
    ours=Side(
        ours_burst,
        (services.process_orders, payments.charge_all),
        "payments.charge_all(attempts)",
        {"placed": exactly(BURST), "ended": at_least(150)},
    ),
    why="A process that waits for an answer does nothing else. Ours claims up to a hundred orders at once, charges "
    "them side by side, and settles them in one transaction.",
    answers=("orders/tasks.py · ORDERS_AT_ONCE", "orders/payments.py · charge_all"),
    test="tests/orders/test_services.py",
    docs="performance/index.md",
)


def naive_typo(lab: Arena) -> Numbers:
    [order] = rows.place_many(1)
    naive.process_order.apply_async((order.pk,), queue="high_priority")
    lab.say("Queued for high_priority, which no worker reads. Nothing complains.", placed=1)
    return lab.count(errors=0, waiting=lab.length("high_priority"))


def ours_typo(lab: Arena) -> Numbers:
    [order] = rows.place_many(1)
    try:
        tasks.process_order.apply_async(kwargs={"order_id": order.pk}, queue="high_priority")
    except Exception as error:
        lab.say(f"{type(error).__name__}: {error}", placed=1, errors=1)
    return lab.count(waiting=lab.length("high_priority"))


experiment(
    "mistyped-queue",
    "A queue that no worker reads",
    practice="Name a queue at the call, or start a worker with -Q high_priority.",
    fault="The name is mistyped.",
    naive=Side(naive_typo, (naive.process_order,), "@app.task", {"errors": exactly(0), "waiting": exactly(1)}),
    ours=Side(
        ours_typo,
        ("CELERY_TASK_CREATE_MISSING_QUEUES",),
        "CELERY_TASK_CREATE_MISSING_QUEUES",
        {"errors": exactly(1), "waiting": exactly(0)},
    ),
    why="Celery makes the queue, and the message waits in it forever. Ours makes no queue that is not declared: "
    "CELERY_TASK_CREATE_MISSING_QUEUES = False.",
    answers=(
        "myproject/settings.py · CELERY_TASK_CREATE_MISSING_QUEUES",
        "durable/checks/traps.py · queue_is_not_declared",
    ),
    test="tests/test_queues.py",
    docs="reference/index.md",
)
