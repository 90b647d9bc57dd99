"""Named points of an order's path, and what can strike there: wrapped from outside, in a worker of the tests only.

A test arms a fault for one order at one point by a small file; the file is renamed when it strikes, once, so that
a process which dies of it leaves a trace. Production code knows nothing of this.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import stripe
from celery import current_task, signals
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import connection
from kombu.utils.json import dumps

from orders import payments, services
from orders.models import Order, OrderQuerySet
from tests.shop import wait_for

# Long enough for the copy of a message, once it has started, to pass the first one.
OVERLAP_SECONDS = 1


class Struck(Exception):
    """What no code expects."""


# --- Points ---


class Point(NamedTuple):
    """Before or after a function of the shop; `orders` reads the ids at stake from its arguments and its answer."""

    name: str
    owner: Any
    function: str
    orders: Callable[[Any, Any], Iterable[int]]
    before: bool = False


def of_payments(args: Any, answer: Any) -> list[int]:
    return [payment.order_id for payment in args[0]]


def of_rows(args: Any, claimed: Any) -> list[int]:
    return [order.pk for order in claimed]


def of_sent(args: Any, answer: Any) -> list[int]:
    return [row.pk for row in args[1]]


POINTS = [
    Point("after claim", OrderQuerySet, "claim_with_others", of_rows),
    Point("after reserve", services, "claim_orders", of_rows),
    Point("before charge", payments, "charge_all", of_payments, before=True),
    Point("after charge", payments, "charge_all", of_payments),
    Point("before commit", services, "complete", lambda args, completed: completed),
    Point("after complete", services, "process_orders", lambda args, processed: processed.completed),
    Point("before mail", OrderQuerySet, "claim_mail", of_rows),
    Point("after mail", OrderQuerySet, "mark_mails_sent", of_sent, before=True),
    Point("after its record", OrderQuerySet, "mark_mails_sent", of_sent),
]


def install() -> None:
    for point in POINTS:
        setattr(point.owner, point.function, wrapped(point))
    stripe.RequestsClient.request = misled(stripe.RequestsClient.request)  # type: ignore[method-assign]
    signals.task_prerun.connect(note_copy)


def wrapped(point: Point) -> Callable[..., Any]:
    original = getattr(point.owner, point.function)

    @wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        if point.before:
            strike(point.name, point.orders(args, None))
        answer = original(*args, **kwargs)
        if not point.before:
            strike(point.name, point.orders(args, answer))
        return answer

    return function


# --- Arming ---


def folder() -> Path:
    return Path(settings.VAR_DIR) / "strikes"


def armed_file(point: str, key: int | str) -> Path:
    return folder() / f"{point}.{key}"


def struck_file(armed: Path) -> Path:
    return armed.with_name(f"{armed.name}.struck")


def arm(point: str, key: int | str, fault: str = "") -> None:
    file = armed_file(point, key)
    file.parent.mkdir(exist_ok=True)
    file.write_text(fault)


def has_struck(point: str, key: int | str) -> bool:
    return struck_file(armed_file(point, key)).exists()


def still_armed(order: Order) -> list[str]:
    """Return what was armed for the order and has not struck: its fault, the copy it was to meet, the provider's."""
    names = (file.name for file in folder().iterdir())
    return [name for name in names if name.endswith((f".{order.pk}", f".{order.reference}"))]


def disarm(point: str, key: int | str) -> str:
    """Return the fault that is armed there, once; empty where none is."""
    file = armed_file(point, key)
    try:
        return file.rename(struck_file(file)).read_text()
    except FileNotFoundError:
        return ""


def strike(point: str, order_ids: Iterable[int]) -> None:
    for pk in order_ids:
        if fault := disarm(point, pk):
            FAULTS[fault](pk)


# --- Faults ---


def raise_exception(order_id: int) -> None:
    raise Struck(order_id)


def kill_child(order_id: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_worker(order_id: int) -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


def stop_worker(order_id: int) -> None:
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(OVERLAP_SECONDS)


def exceed_soft_limit(order_id: int) -> None:
    # The signal by which Celery's parent process tells its child; the sleep is where it arrives.
    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(OVERLAP_SECONDS)


def exceed_hard_limit(order_id: int) -> None:
    """Do not listen to the soft limit; the parent kills this process."""
    while True:
        with suppress(SoftTimeLimitExceeded):
            time.sleep(60)


def deliver_twice(order_id: int) -> None:
    """Bring the message again, as the same task and as another one, and go on when the same one is at work too."""
    task_id = current_task.request.id
    arm("meeting", order_id)
    arm("copy", task_id)
    bring_next(None)
    bring_next(task_id)
    wait_for(lambda: has_struck("copy", task_id), "the copy of the message")
    disarm("meeting", order_id)
    time.sleep(OVERLAP_SECONDS)


def bring_next(task_id: str | None) -> None:
    """Queue the current task again, before all that waits: Redis lists are read from the right."""
    with current_task.app.connection_for_write() as broker:
        channel = broker.default_channel
        channel._put = lambda queue, message, **_: channel.client.rpush(queue, dumps(message))
        current_task.apply_async(kwargs=current_task.request.kwargs, task_id=task_id, connection=broker)


def note_copy(task_id: str, **kwargs: Any) -> None:
    disarm("copy", task_id)


def drop_database_connection(order_id: int) -> None:
    pid = connection.connection.info.backend_pid
    with psycopg.connect(connection.connection.info.dsn) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [pid])


def cancel(order_id: int) -> None:
    Order.objects.get(pk=order_id).mark_cancelled()


def provider(fault: str) -> Callable[[int], None]:
    """Have the provider fail with the next request for the order."""

    def armed(order_id: int) -> None:
        with psycopg.connect(connection.connection.info.dsn) as other:
            row = other.execute("SELECT reference FROM orders_order WHERE id = %s", [order_id]).fetchone()
        assert row
        arm("provider", row[0], fault)

    return armed


def killed_then(fault: Callable[[int], None]) -> Callable[[int], None]:
    """Lose the provider's answer with the process, so that it is asked again, and have it fail then."""

    def armed(order_id: int) -> None:
        fault(order_id)
        kill_child(order_id)

    return armed


def misled(request: Callable[..., Any]) -> Callable[..., Any]:
    """Ask the sandbox for the fault that is armed for the order of this request."""

    def function(client: Any, method: str, url: str, headers: Any, post_data: Any = None) -> Any:
        for file in folder().glob("provider.????-????"):
            reference = file.name.removeprefix("provider.")
            if reference in str(post_data) and (fault := disarm("provider", reference)):
                headers = {**headers, "Sandbox-Fault": fault}
        return request(client, method, url, headers, post_data)

    return function


FAULTS: dict[str, Callable[[int], None]] = {
    "exception": raise_exception,
    "kill -9 child": kill_child,
    "kill -9 worker": kill_worker,
    "TERM": stop_worker,
    "soft limit": exceed_soft_limit,
    "hard limit": exceed_hard_limit,
    "delivered twice": deliver_twice,
    "provider timeout": provider("latency"),
    "provider 5xx after charge": provider("error_after"),
    "kill -9, then timeout": killed_then(provider("latency")),
    "kill -9, then 5xx": killed_then(provider("error_after")),
    "cancelled too late": cancel,
    "database dropped": drop_database_connection,
}
