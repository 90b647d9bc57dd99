"""Exports beside the other ways to write the same rows; each in a process of its own, so that its memory is its own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from functools import partial
from statistics import median

from django.db import connection
from django.utils import timezone

from accounts.models import User
from reports.formats import to_pdf
from reports.models import Report

from . import backlog
from .report import Row
from .scenarios import in_turn

# What memory is compared with.
FEW = 10_000
ORDERS = """
INSERT INTO orders_order (reference, customer_id, token, status, reason, total, currency, created_at, completed_at,
                          claimed_by, opened_at, flag_reason, mail_error)
SELECT %(year)s %% 10 || to_hex(n), %(customer)s, gen_random_uuid(), 'completed', '', 37.50, 'EUR', at, at,
       '', at, '', ''
FROM generate_series(1, %(orders)s) AS n, LATERAL (
    SELECT make_timestamptz(%(year)s, 2, 1, 0, 0, 0) + n * interval '5 s' AS at
) AS times
"""
ITEMS = """
INSERT INTO orders_orderitem (order_id, product_id, name, price, quantity)
SELECT orders_order.id, orders_product.id, orders_product.name, 12.50, 1 + orders_order.id %% 3
FROM orders_order JOIN orders_product ON (orders_product.id + orders_order.id) %% 33 = 0
WHERE orders_product.id <= %(products)s AND extract(year FROM completed_at) = %(year)s
"""
# Rounds: what is looked for is less than what a run differs from the next.
WATCHED = 11
OURS = ("csv", "xlsx", "parquet")
FAST = ("psql", *OURS)
SLOW = ("XlsxWriter", "rustpy-xlsxwriter")


def exports(rows: int) -> list[Row]:
    """Measure what so many order lines cost in each format, and what they cost otherwise."""
    # XlsxWriter's way is as fast with a tenth, and would take minutes for all.
    sizes = {"few": FEW, "some": max(rows // 10, 1), "many": rows}
    reports = {size: sell(year, lines) for year, (size, lines) in enumerate(sizes.items(), start=2018)}
    backlog.tidy()
    peaks: dict[str, list[float]] = {side: [] for side in (*SLOW, *FAST)}

    def measure(side: str) -> float:
        size = "some" if side in SLOW else "many"
        seconds, peak = run(side, reports[size])
        peaks[side].append(peak)
        return sizes[size] / seconds

    speeds = in_turn({side: partial(measure, side) for side in peaks})
    small = {side: run(side, reports["few"])[1] for side in OURS}
    title = f"Peak memory, beside that of {FEW:,} lines"
    memory = [
        Row("" if n else title, side, median(peaks[side]), small[side], unit="MB", above=30)
        for n, side in enumerate(OURS)
    ]
    return speed(speeds, rows) + paper() + memory


def paper() -> list[Row]:
    """Measure the longest PDF that there may be, beside one second."""
    report = sell(2017, to_pdf.ROWS // 3 * 3)
    seconds = in_turn({"pdf": lambda: run("pdf", report)[0]})["pdf"]
    return [Row(f"A PDF of {to_pdf.ROWS:,} rows, beside a second", "ours", seconds, 1, most=1, unit="ms")]


def progress(rows: int) -> list[Row]:
    """Measure what the signs of life cost a report of so many order lines as CSV, the format that is done soonest."""
    report = sell(2021, rows)
    backlog.tidy()

    def measure(side: str) -> float:
        return rows / run(side, report)[0]

    speeds = in_turn({side: partial(measure, side) for side in ("csv", "watched")}, WATCHED)
    without = speeds["csv"]
    return [
        Row(f"{rows:,} order lines as CSV, with signs of life", "without", without, without, unit="rows/s"),
        Row("", "one each second", speeds["watched"], without, least=0.98, unit="rows/s"),
    ]


def speed(speeds: Mapping[str, float], rows: int) -> list[Row]:
    psql, slow, ours = speeds["psql"], speeds["XlsxWriter"], speeds["csv"]
    return [
        Row(f"{rows:,} order lines as CSV", "psql \\copy of the same query", psql, psql, unit="rows/s"),
        Row("", "ours", ours, psql, least=1, unit="rows/s"),
        Row("The same as XLSX", "XlsxWriter, constant memory", slow, slow, unit="rows/s"),
        Row("", "rustpy-xlsxwriter", speeds["rustpy-xlsxwriter"], slow, unit="rows/s"),
        Row("", "ours", speeds["xlsx"], slow, least=15, unit="rows/s"),
        Row("The same as Parquet, beside CSV", "ours", speeds["parquet"], ours, least=0.5, unit="rows/s"),
    ]


def run(side: str, report: str) -> tuple[float, float]:
    """Return the seconds that the side takes, and its peak memory in megabytes."""
    command = [sys.executable, "-m", "benchmarks.export_sides", side, report]
    seconds, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds, peak


def sell(year: int, lines: int) -> str:
    """Sell so many lines in that year, in the database itself; return a report of them."""
    customer = User.objects.get()
    with connection.cursor() as cursor:
        cursor.execute(ORDERS, {"customer": customer.pk, "orders": -(-lines // 3), "year": year})
        cursor.execute(ITEMS, {"products": backlog.PRODUCTS // 33 * 33, "year": year})
    year_of = {"start": date(year, 1, 1), "end": date(year, 12, 31)}
    return str(Report.objects.create(requested_by=customer, due_at=timezone.now(), **year_of).pk)
