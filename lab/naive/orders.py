"""An order as the tutorials process it; each function is one practice."""

import time

import requests
from django.core.mail import send_mail
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from lab.naive.app import app
from lab.naive.gateway import charge
from orders.models import Order, OrderItem, Product, Status


def begin(order: Order) -> None:
    # The column is the shop's: an open order of its table must have it.
    order.status, order.due_at = Status.PROCESSING, timezone.now()
    order.save()


def complete(order: Order) -> None:
    order.status, order.completed_at, order.due_at = Status.COMPLETED, timezone.now(), None
    order.save()


@app.task
def process_order(order_id: int) -> None:
    """Get, change, charge, save."""
    order = Order.objects.get(pk=order_id)
    begin(order)
    charge(order)
    complete(order)


@app.task
def reserve(order_id: int) -> None:
    """Take the goods off the shelf: the first step of a chain."""
    for item in OrderItem.objects.filter(order=order_id):
        Product.objects.filter(pk=item.product_id).update(stock=F("stock") - item.quantity)


@app.task
def confirm(order_id: int) -> None:
    """Mail the customer: the last step of a chain."""
    order = Order.objects.get(pk=order_id)
    send_mail(f"Your order {order}", "It is on its way.", None, [order.customer.email])


@transaction.atomic
def checkout(order: Order) -> None:
    """Save and queue, as a view does; then the rest of the request takes its time."""
    order.save()
    process_order.delay(order.pk)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.5)")


def checkout_on_commit(order: Order) -> None:
    with transaction.atomic():
        order.save()
        transaction.on_commit(lambda: process_order.delay(order.pk))


@app.task
def process_pending_order(order_id: int) -> None:
    """Read the status, compare, save."""
    order = Order.objects.get(pk=order_id)
    if order.status != Status.PENDING:
        return
    # Whatever takes a moment here: a look at the customer, at the address.
    time.sleep(0.2)
    order.status = Status.PROCESSING
    order.save()
    charge(order)
    complete(order)


@app.task(bind=True, autoretry_for=(requests.RequestException,), default_retry_delay=1, max_retries=3)
def charge_order(self: object, order_id: int) -> None:
    """Charge, and try again when the provider does not answer."""
    order = Order.objects.get(pk=order_id)
    charge(order)
    complete(order)
