"""Tasks whose worker dies, hangs, waits or is stopped, as the tutorials write them."""

import os
import signal
import time
from datetime import timedelta

from django.core.mail import send_mail
from django.db import connection
from django.utils import timezone

from lab import marks
from lab.naive.app import app
from lab.naive.gateway import charge
from lab.naive.orders import complete
from orders.models import ImportStatus, Order, Product, ProductImport, Status


@app.task(acks_late=True)
def charge_late(order_id: int) -> None:
    """Charge, write the invoice, save; acknowledged late."""
    order = Order.objects.get(pk=order_id)
    charge(order)
    # The invoice.
    time.sleep(3)
    complete(order)


@app.task(acks_late=True, reject_on_worker_lost=True)
def take_all_memory() -> None:
    """Die as by the kernel's hand, which ends a process that takes all memory."""
    marks.leave("runs")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True, time_limit=3)
def process_in_time(order_id: int) -> None:
    """Acknowledged late, with a hard limit."""
    order = Order.objects.get(pk=order_id)
    order.status = Status.PROCESSING
    order.save()
    charge(order)
    complete(order)


@app.task
def take(name: str, seconds: float) -> None:
    """Take a while, and leave a mark."""
    time.sleep(seconds)
    marks.leave("taken", name)


@app.task
def ask_database(number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    marks.leave("taken", str(number))


@app.task(acks_late=True)
def take_over(order_id: int) -> None:
    """Take an order whose lock is older than five seconds, and save it as it was read."""
    order = Order.objects.get(pk=order_id)
    if order.status == Status.PROCESSING and order.due_at and order.due_at > timezone.now():
        return
    order.status, order.due_at = Status.PROCESSING, timezone.now() + timedelta(seconds=5)
    order.save()
    charge(order)
    complete(order)
    send_mail(f"Your order {order}", "It is on its way.", None, [order.customer.email])


@app.task
def import_products(import_id: str) -> None:
    """Import the file line by line."""
    row = ProductImport.objects.get(pk=import_id)
    row.status = ImportStatus.RUNNING
    row.save()
    with row.file.open() as file:
        for line in list(file)[1:]:
            name, sku, price, stock, category = line.decode().strip().split(",")
            values = {"name": name, "price": price, "stock": stock, "category": category, "slug": sku.lower()}
            Product.objects.update_or_create(sku=sku, defaults=values)
    row.status, row.due_at, row.finished_at = ImportStatus.DONE, None, timezone.now()
    row.save()


@app.task
def mark_failed(request: object, exc: object, traceback: object, import_id: str) -> None:
    """Tell a person, by link_error."""
    ProductImport.objects.filter(pk=import_id).update(status=ImportStatus.FAILED, due_at=None)


@app.task
def write_part(number: int) -> int:
    """Write one part of the pack."""
    time.sleep(0.3)
    marks.leave("taken", str(number))
    return number


@app.task
def bundle(parts: list[int]) -> None:
    """Bundle the parts, when all of them are there."""
    marks.leave("bundled", str(sorted(parts)))
