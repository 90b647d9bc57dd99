"""Pages of the dashboard and the reports with a thousand orders and with many, which the database makes by itself."""

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from statistics import median

from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts.models import User
from orders.models import Order, Product
from reports import daily_sales
from reports.models import Report

from .backlog import ITEMS, PRODUCTS, tidy
from .report import Row, write

FEW = 1_000
ROUNDS = 25
OF_EACH_CUSTOMER = 50
YEARS = timedelta(days=730)
# Spread over two years; of twenty orders one was refunded, and one not sold.
ORDERS = """
INSERT INTO orders_order (reference, customer_id, token, status, reason, total, currency, created_at, completed_at,
    claimed_by, opened_at, flag_reason, mail_error)
SELECT to_char(n, 'FM000000000'), %(customer)s + n / %(each)s, gen_random_uuid(),
    CASE n %% 20 WHEN 1 THEN 'refunded' WHEN 2 THEN 'rejected' ELSE 'completed' END, '', 37.50, 'EUR',
    at, at, '', at, '', ''
FROM generate_series(0, %(count)s - 1) AS n, LATERAL (SELECT now() - (n %% 9973) / 9973.0 * %(years)s AS at) AS made
"""
LINES = """
INSERT INTO orders_orderitem (order_id, product_id, name, price, quantity)
SELECT id, %(product)s + (id * 7 + k * 31) %% %(products)s, 'Lamp', 12.50, 1
FROM orders_order, generate_series(0, %(items)s - 1) AS k
"""


def dashboard(count: int) -> list[Row]:
    """How long pages take with so many orders, as a ratio to a thousand."""
    call_command("collectstatic", interactive=False, verbosity=0)
    staff = User.objects.create(email="staff@example.com", name="Sam", is_staff=True)
    Report.objects.bulk_create(
        Report(requested_by=staff, start="2026-01-01", end="2026-01-31", due_at=timezone.now()) for _ in range(30)
    )
    few, many = measured(FEW, staff), measured(count, staff)
    return [
        row
        for page in few
        for row in (
            Row(f"{page}, {FEW:,} orders", "median", few[page], few[page], unit="ms"),
            Row("", f"{count:,} orders", many[page], few[page], unit="ms", most=1.5),
        )
    ]


def measured(count: int, staff: User) -> dict[str, float]:
    fill(count)
    counted = timed(lambda: list(daily_sales.rebuild()))
    updated = timed(daily_sales.update)
    write(f"{count:,} orders: daily sales rebuilt in {counted:.2f} s, updated in {updated * 1000:.0f} ms")
    customer = Order.objects.order_by("pk")[:1].get().customer
    report = Report.objects.filter(requested_by=staff)[:1].get()
    pages = {
        "Dashboard of staff": (staff, "/dashboard/"),
        "Dashboard of a customer": (customer, "/dashboard/"),
        "List of reports": (staff, "/reports/"),
        "Page of a report": (staff, report.get_absolute_url()),
    }
    return {name: seconds_of_page(person, path) for name, (person, path) in pages.items()}


def fill(count: int) -> None:
    """Leave exactly so many orders of three lines, the same number for each customer."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE orders_order CASCADE")
        people = (User(email=f"{count}-{n}@example.com", name="C") for n in range(-(-count // OF_EACH_CUSTOMER)))
        first = User.objects.bulk_create(people)[0]
        product = Product.objects.order_by("pk")[:1].get()
        given = {"customer": first.pk, "each": OF_EACH_CUSTOMER, "count": count, "years": YEARS}
        # Without the checks of foreign keys, which take longer than all the rest.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(ORDERS, given)
        cursor.execute(LINES, {"product": product.pk, "products": PRODUCTS, "items": ITEMS})
        cursor.execute("RESET session_replication_role")
    tidy()


def seconds_of_page(person: User, path: str) -> float:
    client = Client(SERVER_NAME="localhost")
    client.force_login(person)
    get = partial(client.get, path, secure=True)
    if (answer := get()).status_code != 200:
        raise SystemExit(f"{path} answered {answer.status_code}")
    return median(timed(get) for _ in range(ROUNDS))


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
