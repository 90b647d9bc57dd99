"""Orders that wait, and their messages, made while no worker looks."""

import random
import time
import uuid
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from celery import Task
from django.conf import settings
from django.db import connection, transaction

from accounts.models import User
from durable import mail
from durable.leases import SHORTEST_WAIT
from myproject.celery import app
from orders.models import Card, Kind, Order, OrderEvent, OrderItem, Payment, Product
from orders.tasks import ORDERS_PER_MESSAGE, send_digest_emails, send_order_confirmation

from .processes import wait_for

ITEMS = 3
HOUR = 3600
# Orders written before the next ones ask for whom a message is on its way.
AT_ONCE = 100
PRODUCTS = 100
PRICE = Decimal("12.50")
# A database of the broker's that no worker reads: what waits there is moved to the workers' at once.
PARKED = f"{settings.CELERY_BROKER_URL}?virtual_host=1"


def stock_up() -> User:
    Product.objects.bulk_create(
        Product(sku=f"B-{n}", slug=f"b-{n}", name=f"Lamp {n}", category="Lighting", price=PRICE, stock=1_000_000)
        for n in range(PRODUCTS)
    )
    return User.objects.create(email="customer@example.com", name="Customer")


@transaction.atomic
def fill(count: int) -> list[int]:
    """Write down orders of three items as `place_order` leaves them; return their ids."""
    customer, products, draw = User.objects.get(), list(Product.objects.all()), random.Random(1)
    orders = Order.objects.bulk_create(
        Order(customer=customer, token=uuid.uuid4(), total=PRICE * ITEMS, **Order.lease.fresh()) for _ in range(count)
    )
    OrderItem.objects.bulk_create(
        OrderItem(order=order, product=product, name=product.name, price=PRICE, quantity=1)
        for order in orders
        for product in draw.sample(products, ITEMS)
    )
    Payment.objects.bulk_create(
        Payment(order=order, card=Card.VISA, amount=order.total, currency=order.currency) for order in orders
    )
    OrderEvent.objects.bulk_create(OrderEvent(order=order, kind=Kind.PLACED) for order in orders)
    return [order.pk for order in orders]


def place(count: int) -> list[int]:
    """Write down orders as they come in while all workers are busy; return those whose checkout sends a message."""
    sent: list[int] = []
    for _ in range(0, count, AT_ONCE):
        written = Order.objects.in_bulk(fill(min(AT_ONCE, count)))
        time.sleep(SHORTEST_WAIT.total_seconds())
        sent += [pk for pk, order in written.items() if not Order.objects.takes_along(order, every=ORDERS_PER_MESSAGE)]
        count -= AT_ONCE
    return sent


def tidy() -> None:
    """Leave both sides the same tables: measured, and without what earlier rounds left to be vacuumed."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def park(task: Task, arguments: Sequence[dict[str, Any]]) -> None:
    """Queue a message for each of the arguments where no worker finds it yet."""
    with task.app.connection_for_write(PARKED) as parked, task.app.amqp.Producer(parked) as producer:
        for kwargs in arguments:
            task.apply_async(kwargs=kwargs, producer=producer)


def release(queue: str) -> float:
    """Give all that is parked to the readers of the queue in one moment; return that moment."""
    start = time.perf_counter()
    if not redis(PARKED).move(queue, 0):
        raise SystemExit(f"No message for {queue} was parked, or some were waiting in it.")
    return start


def wait_until_completed() -> float:
    """Return the moment when no order is open any more."""
    unfinished = "SELECT 1 FROM orders_order WHERE status IN ('pending', 'processing') LIMIT 1"
    return wait_for(lambda: not found(unfinished), "all orders", seconds=HOUR, every=0.01)


def found(sql: str, *values: Any) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchone() is not None


def wait_until_empty(queue: str) -> float:
    """Return the moment when the queue is empty and each of its messages acknowledged."""
    what = f"the end of the queue {queue}"
    return wait_for(lambda: not (redis().llen(queue) or redis().hlen("unacked")), what, seconds=HOUR, every=0.01)


def crowd(count: int) -> None:
    """Let so many messages wait, in turn, in the queues that no worker reads here."""
    for task, kwargs in ((send_order_confirmation, {"order_id": 1}), (send_digest_emails, {"week": "2026-01-05"})):
        task.apply_async(kwargs=kwargs)
    messages = {queue: redis().lindex(queue, 0) for queue in ("mail", "bulk")}
    with redis().pipeline(transaction=False) as pipeline:
        for queue, message in messages.items():
            pipeline.lpush(queue, *[message] * (count // len(messages)))
        pipeline.execute()


def forget_mail() -> tuple[int, int]:
    """Drop the messages of confirmations, which no worker reads here; return how many mails were owed and queued."""
    messages = redis().llen("mail")
    redis().delete("mail")
    return Order.objects.unsent().update(mail_due_at=None), messages * mail.BATCH


@cache
def redis(url: str = settings.CELERY_BROKER_URL) -> Any:
    return app.connection_for_write(url).default_channel.client
