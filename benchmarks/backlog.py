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
from kombu import Queue

from accounts.models import User
from myproject.celery import app
from orders.models import Card, Kind, Order, OrderEvent, OrderItem, Payment, Product

ITEMS = 3
PRODUCTS = 100
PRICE = Decimal("12.50")
# A queue that no worker reads; renamed, it is the backlog of another one at once.
PARKED = Queue("parked", routing_key="parked")


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


def tidy() -> None:
    """Leave both sides the same tables: measured, and without what earlier rounds left to be vacuumed."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def park(task: Task, arguments: Sequence[dict[str, Any]]) -> None:
    """Queue a message for each of the arguments where no worker finds it yet."""
    with app.producer_or_acquire() as producer:
        for kwargs in arguments:
            task.apply_async(kwargs=kwargs, queue=PARKED, producer=producer)


def release(queue: str) -> float:
    """Give all that is parked to the readers of the queue in one moment; return that moment."""
    start = time.perf_counter()
    redis().rename(PARKED.name, queue)
    return start


def wait_until_completed() -> float:
    """Return the moment when no order is open any more."""
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT 1 FROM orders_order WHERE status IN ('pending', 'processing') LIMIT 1")
            if not cursor.fetchall():
                return time.perf_counter()
            time.sleep(0.01)


def wait_until_empty(queue: str) -> float:
    """Return the moment when the queue is empty and each of its messages acknowledged."""
    while redis().llen(queue) or redis().hlen("unacked"):
        time.sleep(0.01)
    return time.perf_counter()


def forget_mail() -> int:
    """Drop the confirmations that were queued, which no worker reads here; return how many there were."""
    queued: int = redis().llen("mail")
    redis().delete("mail")
    return queued


@cache
def redis() -> Any:
    return app.connection_for_write(settings.CELERY_BROKER_URL).default_channel.client
