"""Messages that no task can be made of, or that nobody should run."""

from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery
from django.conf import settings

from lab import faults, rows
from lab.arena import NAIVE, OURS, Arena
from lab.experiment import Numbers, Side, exactly, experiment
from lab.naive import orders as naive
from lab.naive.app import BROKER
from myproject.alerting import dead_letters
from myproject.alerting.consumer import Consumer
from myproject.alerting.models import DeadLetter
from myproject.celery import app
from myproject.transport import certificates, on_redis, signing
from orders import tasks

ORDERS = 3
GARBAGE = '{"body": "W10=", "headers": {"task'


def naive_garbage(lab: Arena) -> Numbers:
    lab.rest(NAIVE)
    orders = rows.place_many(ORDERS)
    with lab.worker(NAIVE) as worker:
        faults.put(lab, "celery", GARBAGE)
        for order in orders:
            naive.process_order.delay(order.pk)
        lab.say(f"Something that is no message stands in the queue, before {ORDERS} orders.", placed=ORDERS)
        lab.watch(6, lambda: {"ended": rows.completed_in_all(), "workers": int(worker.is_alive)})
    return lab.numbers


def ours_garbage(lab: Arena) -> Numbers:
    lab.rest(OURS)
    faults.put(lab, "orders", GARBAGE)
    for order in rows.place_many(ORDERS):
        tasks.process_order.delay(order_id=order.pk)
    lab.say(f"Something that is no message stands in the queue, before {ORDERS} orders.", placed=ORDERS)
    worker = lab.common(OURS)
    lab.until(lambda: rows.completed_in_all() == ORDERS, "the orders", sweep=True)
    lab.until(DeadLetter.objects.exists, "the dead letter")
    return lab.count(ended=ORDERS, workers=int(worker.is_alive), noted=DeadLetter.objects.count())


experiment(
    "garbage",
    "A message that cannot be decoded",
    practice="Trust what stands in the queue.",
    fault="Half a message stands in front of the others.",
    naive=Side(
        naive_garbage,
        (naive.process_order,),
        "@app.task",
        {"placed": exactly(ORDERS), "workers": exactly(0)},
    ),
    ours=Side(
        ours_garbage,
        (on_redis.Guard,),
        "except Unfit as error",
        {"placed": exactly(ORDERS), "ended": exactly(ORDERS), "workers": exactly(1), "noted": exactly(1)},
    ),
    why="Kombu cannot read it, and the worker ends; started again it works until the next one. Ours keeps it as a "
    "dead letter with its reason, and goes on.",
    answers=("myproject/transport/on_redis.py · taken", "myproject/transport/envelope.py · check_envelope"),
    test="tests/test_dead_letters.py",
    docs="operations/dead-letters.md",
)

LATER = "process_gift_order"


def naive_unknown(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    [order] = rows.place_many(1)
    naive.app.send_task(f"lab.naive.orders.{LATER}", (order.pk,))
    lab.say("The new web queues a task that the old worker does not know.", placed=1)
    lab.until(lambda: not lab.length("celery"), "the message to be taken")
    lab.watch(3, lambda: {"waiting": lab.length("celery"), "ended": rows.completed(order)})
    return lab.count(noted=DeadLetter.objects.count())


def ours_unknown(lab: Arena) -> Numbers:
    lab.common(OURS)
    [order] = rows.place_many(1)
    app.send_task(f"orders.tasks.{LATER}", kwargs={"order_id": order.pk}, queue="orders")
    lab.say("The new web queues a task that the old worker does not know.", placed=1)
    lab.until(DeadLetter.objects.exists, "the dead letter")
    lab.say("The message is kept, and can be sent again when its task is known.")
    return lab.count(noted=DeadLetter.objects.count())


experiment(
    "unknown-task",
    "A task that the worker does not know",
    practice="Replace web and workers in any order.",
    fault="The new web queues a task that the old worker does not know.",
    naive=Side(
        naive_unknown,
        (naive.process_order,),
        "@app.task",
        {"placed": exactly(1), "waiting": exactly(0), "ended": exactly(0), "noted": exactly(0)},
    ),
    ours=Side(
        ours_unknown,
        (Consumer, dead_letters.bury),
        "DeadLetter.objects.record(letters)",
        {"placed": exactly(1), "noted": exactly(1)},
    ),
    why="Celery discards the message with a line in the log. Ours keeps it as a dead letter, which staff can send "
    "again when the new worker is there.",
    answers=("myproject/alerting/consumer.py · Consumer",),
    test="tests/test_dead_letters.py",
    docs="operations/dead-letters.md",
)


def forge(queue: str, name: str, *args: int, **kwargs: int) -> None:
    """Publish as somebody who has reached Redis, and has no key."""
    forger = Celery("forger", set_as_current=False)
    forger.conf.broker_write_url = BROKER if queue == "celery" else settings.CELERY_BROKER_URL
    forger.send_task(name, args, kwargs, queue=queue)


def naive_signing(lab: Arena) -> Numbers:
    [order] = rows.place_many(1)
    with lab.worker(NAIVE, conf={"task_signing": True}):
        forge("celery", naive.process_order.name, order.pk)
        lab.say("Somebody who has reached Redis queues an order.", placed=1)
        lab.watch(6, lambda: {"accepted": rows.completed(order)})
    return lab.numbers


def ours_signing(lab: Arena) -> Numbers:
    [order] = rows.place_many(1)
    # It answers no ping that is not signed.
    with lab.worker(OURS, ready=partial(is_reading, lab), **signed(lab)):
        forge("orders", tasks.process_order.name, order_id=order.pk)
        lab.say("Somebody who has reached Redis queues an order.", placed=1)
        lab.watch(6, lambda: {"accepted": rows.completed(order)})
    return lab.count(noted=int(DeadLetter.objects.exists()))


def is_reading(lab: Arena) -> bool:
    """Tell whether a worker waits for messages of our queues."""
    with lab.redis("orders") as redis:
        clients: Any = redis.client_list()
    return any(client["cmd"] == "brpop" and client["db"] == "0" for client in clients)


def signed(lab: Arena) -> dict[str, str]:
    """Return the variables of a worker that takes signed messages only."""
    folder = Path(lab.home) / f"certificates-{len(lab.started)}"
    paths = certificates.make(folder, 1)
    names = (f"CELERY_{name.upper()}" for name in certificates.SETTINGS)
    return dict(zip(names, map(str, paths), strict=True))


experiment(
    "task-signing",
    "CELERY_TASK_SIGNING = True",
    practice="Switch on the signing of messages by this setting.",
    fault="Somebody who has reached Redis queues a task.",
    naive=Side(naive_signing, (naive.process_order,), "@app.task", {"placed": exactly(1), "accepted": exactly(1)}),
    ours=Side(
        ours_signing,
        (signing.set_up,),
        "def set_up",
        {"placed": exactly(1), "accepted": exactly(0)},
    ),
    why="Celery never had such a setting, and ignores it: messages are unsigned, and anybody's is run. Ours has keys, "
    "made by `manage.py make_certificates`, and from then on takes nothing that is not signed.",
    answers=("durable/checks/traps.py · setting_does_not_exist", "myproject/transport/signing.py · set_up"),
    test="tests/operations/test_signing.py",
    docs="operations/security.md",
)
