"""Pages of the dashboard and the reports with a thousand orders and with many, which the database makes by itself.

There are a tenth as many reports of somebody else.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from statistics import median

import psycopg
from django.core.management import call_command
from django.db import connection
from django.test import Client

from accounts.models import User
from orders.models import Product
from reports import daily_sales
from reports.models import Report, Status

from .backlog import ITEMS, PRODUCTS, tidy
from .environment import CONNINFO
from .report import Row, write

FEW = 1_000
ROUNDS = 25
OF_EACH_CUSTOMER = 50
YEARS = timedelta(days=730)
# Over two years, one after the other; of twenty orders one was refunded, and one not sold.
ORDERS = """
INSERT INTO orders_order (reference, customer_id, token, status, reason, total, currency, created_at, completed_at,
    claimed_by, opened_at, flag_reason, mail_error)
SELECT to_char(n, 'FM000000000'), %(customer)s + n %% (%(count)s / %(each)s), gen_random_uuid(),
    CASE n %% 20 WHEN 1 THEN 'refunded' WHEN 2 THEN 'rejected' ELSE 'completed' END, '', 37.50, 'EUR',
    at, at, '', at, '', ''
FROM generate_series(0, %(count)s - 1) AS n,
    LATERAL (SELECT now() - (%(count)s - n) * %(years)s / %(count)s AS at) AS made
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
    other = User.objects.create(email="other@example.com", name="Sue", is_staff=True)
    ask(30, staff)
    ask(FEW // 10, other)
    fill(FEW)
    connection.close()
    psycopg.connect(CONNINFO, dbname="postgres", autocommit=True).execute("CREATE DATABASE few TEMPLATE shop")
    ask(count // 10, other)
    fill(count)
    few, many = in_turn(pages(staff))
    return [
        row
        for page in few
        for row in (
            Row(f"{page}, {FEW:,} orders", "median", few[page], few[page], unit="ms"),
            Row("", f"{count:,} orders", many[page], few[page], unit="ms", most=1.5),
        )
    ]


def pages(staff: User) -> dict[str, tuple[User, str]]:
    customer = User.objects.get(email="0@buyers.example.com")
    report = Report.objects.filter(requested_by=staff)[:1].get()
    return {
        "Dashboard of staff": (staff, "/dashboard/"),
        "Dashboard of a customer": (customer, "/dashboard/"),
        "List of reports": (staff, "/reports/"),
        "Page of a report": (staff, report.get_absolute_url()),
    }


def in_turn(chosen: dict[str, tuple[User, str]]) -> list[dict[str, float]]:
    """Return the median of each page in both databases, which take turns: so both bear what else the machine does."""
    figures: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ("few", "shop")}
    for _ in range(ROUNDS):
        for database, seconds in figures.items():
            connection.close()
            connection.settings_dict["NAME"] = database
            for page, (person, path) in chosen.items():
                seconds[page].append(seconds_of_page(person, path))
    return [{page: median(values) for page, values in seconds.items()} for seconds in figures.values()]


def fill(count: int) -> None:
    """Leave exactly so many orders of three lines, the same number for each customer."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE orders_order CASCADE")
        buyers = User.objects.filter(email__endswith="@buyers.example.com")
        new = range(buyers.count(), count // OF_EACH_CUSTOMER)
        User.objects.bulk_create(User(email=f"{n}@buyers.example.com", name="C") for n in new)
        first = buyers.order_by("pk")[:1].get()
        product = Product.objects.order_by("pk")[:1].get()
        given = {"customer": first.pk, "each": OF_EACH_CUSTOMER, "count": count, "years": YEARS}
        # Without the checks of foreign keys, which take longer than all the rest.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(ORDERS, given)
        cursor.execute(LINES, {"product": product.pk, "products": PRODUCTS, "items": ITEMS})
        cursor.execute("RESET session_replication_role")
    tidy()
    rebuilt = timed(lambda: list(daily_sales.rebuild()))
    updated = timed(daily_sales.update)
    write(f"{count:,} orders: daily sales rebuilt in {rebuilt:.2f} s, updated in {updated * 1000:.0f} ms")


def ask(count: int, person: User) -> None:
    """Create that many cancelled reports of the person; equal open ones would violate a constraint."""
    january = {"start": "2026-01-01", "end": "2026-01-31", "status": Status.CANCELLED}
    Report.objects.bulk_create([Report(requested_by=person, **january) for _ in range(count)], batch_size=5_000)


def seconds_of_page(person: User, path: str) -> float:
    client = Client(SERVER_NAME="localhost")
    client.force_login(person)
    # Once before, for the connection and the caches.
    if (answer := client.get(path, secure=True)).status_code != 200:
        raise SystemExit(f"{path} answered {answer.status_code}")
    return timed(partial(client.get, path, secure=True))


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
