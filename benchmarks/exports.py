"""Exports beside the other ways to write the same rows; each in a process of its own, so that its memory is its own."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from statistics import median

from django.db import connection

from accounts.models import User
from orders.models import OrderItem
from reports.models import Report

from . import backlog
from .report import Row
from .scenarios import in_turn

# The first lines, enough for two blocks, were sold in 2019, all others in 2020.
FEW = 10_000
ORDERS = """
INSERT INTO orders_order (reference, customer_id, token, status, reason, total, currency, created_at, completed_at,
                          claimed_by, opened_at, flag_reason, mail_error)
SELECT to_hex(n), %(customer)s, gen_random_uuid(), 'completed', '', 37.50, 'EUR', at, at, '', at, '', ''
FROM generate_series(1, %(orders)s) AS n, LATERAL (
    SELECT make_timestamptz(CASE WHEN n <= %(few)s THEN 2019 ELSE 2020 END, 2, 1, 0, 0, 0) + n * interval '5 s' AS at
) AS times
"""
ITEMS = """
INSERT INTO orders_orderitem (order_id, product_id, name, price, quantity)
SELECT orders_order.id, orders_product.id, orders_product.name, 12.50, 1 + orders_order.id %% 3
FROM orders_order JOIN orders_product ON (orders_product.id + orders_order.id) %% 33 = 0 AND orders_product.id <= %s
"""
OURS = ("csv", "xlsx", "parquet")
OTHERS = ("psql", "XlsxWriter", "rustpy-xlsxwriter")


def exports(rows: int) -> list[Row]:
    """Measure what so many order lines cost in each format, and what they cost otherwise."""
    few, many = sell(rows)
    peaks: dict[str, list[float]] = {side: [] for side in OURS}
    speeds = in_turn({side: measured(side, many, rows, peaks.setdefault(side, [])) for side in (*OTHERS, *OURS)})
    small = {side: run(side, few)[1] for side in OURS}
    title = f"Peak memory, beside that of {FEW:,} lines"
    memory = [
        Row("" if n else title, side, median(peaks[side]), small[side], unit="MB", above=30)
        for n, side in enumerate(OURS)
    ]
    return speed(speeds, rows) + memory


def speed(speeds: dict[str, float], rows: int) -> list[Row]:
    psql, slow, ours = speeds["psql"], speeds["XlsxWriter"], speeds["csv"]
    return [
        Row(f"{rows:,} order lines as CSV", "psql \\copy of the same query", psql, psql, unit="rows/s"),
        Row("", "ours", ours, psql, least=0.9, unit="rows/s"),
        Row("The same as XLSX", "XlsxWriter, constant memory", slow, slow, unit="rows/s"),
        Row("", "rustpy-xlsxwriter", speeds["rustpy-xlsxwriter"], slow, unit="rows/s"),
        Row("", "ours", speeds["xlsx"], slow, least=4, unit="rows/s"),
        Row("The same as Parquet, beside CSV", "ours", speeds["parquet"], ours, least=0.5, unit="rows/s"),
    ]


def measured(side: str, report: str, rows: int, peaks: list[float]) -> Callable[[], float]:
    def measure() -> float:
        seconds, peak = run(side, report)
        peaks.append(peak)
        return rows / seconds

    return measure


def run(side: str, report: str) -> tuple[float, float]:
    """Return the seconds that the side takes, and its peak memory in megabytes."""
    command = [sys.executable, "-m", "benchmarks.export_sides", side, report]
    seconds, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds, peak


def sell(rows: int) -> tuple[str, str]:
    """Sell so many lines, and a few, in the database itself; return a report of the few and one of the many."""
    customer, few = User.objects.get(), -(-FEW // 3)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE orders_order CASCADE")
        cursor.execute(ORDERS, {"customer": customer.pk, "orders": few - (-rows // 3), "few": few})
        cursor.execute(ITEMS, [backlog.PRODUCTS // 33 * 33])
    backlog.tidy()
    assert OrderItem.objects.count() >= rows + FEW
    year_of = {year: {"start": date(year, 1, 1), "end": date(year, 12, 31)} for year in (2019, 2020)}
    reports = [Report.objects.create(requested_by=customer, due_at="2100-01-01T00:00Z", **d) for d in year_of.values()]
    return str(reports[0].pk), str(reports[1].pk)
