"""One way to write one report, in a process like a worker's: `python -m benchmarks.export_sides SIDE REPORT`.

Prints its seconds and its peak memory in megabytes.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import django

django.setup()

# ruff: noqa: E402
from django.conf import settings
from django.db import connection, transaction
from django.utils.timezone import make_naive

from myproject.celery import app
from myproject.embedded import Postgres
from reports import formats, services
from reports.formats import to_csv
from reports.formats.copying import Copy
from reports.heartbeat import Heartbeat
from reports.kinds import Table, rows_expected, table_of
from reports.models import Report, Status


def ours(report: Report, target: BinaryIO) -> None:
    services.write(report, target, lambda rows: None)


def watched(report: Report, target: BinaryIO) -> None:
    """Ours as a worker writes it: with a sign of life each second, and how far it is."""
    held = {"status": Status.RUNNING, "claimed_by": "benchmark", "attempts": 1}
    Report.objects.filter(pk=report.pk).update(**held)
    report.refresh_from_db()
    with Heartbeat(report) as heartbeat:
        heartbeat.rows_total = rows_expected(report)
        services.write(report, target, heartbeat.progress)
    if heartbeat.is_lost:
        raise RuntimeError("The report was not held, so this has measured nothing.")


def psql(report: Report, target: BinaryIO) -> None:
    """Have psql copy what our CSV copies."""
    with table_of(report) as table, connection.cursor() as cursor:
        sql = cursor.mogrify(Copy(table, map(to_csv.expression, table.columns), print).sql, table.params)
    program, socket = Postgres._binary("psql"), settings.DATABASES["default"]["HOST"]
    command = f"\\{str(sql)[0].lower()}{str(sql)[1:]}".replace("TO STDOUT", f"TO '{target.name}'")
    subprocess.run([program, "-qX", "-h", socket, "-U", "postgres", "-d", "shop", "-c", command], check=True)


def xlsxwriter(report: Report, target: BinaryIO) -> None:
    import xlsxwriter

    book = xlsxwriter.Workbook(target.name, {"constant_memory": True, "default_date_format": "yyyy-mm-dd hh:mm:ss"})
    sheet = book.add_worksheet()
    with fetched(report) as rows:
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    book.close()


def rustpy(report: Report, target: BinaryIO) -> None:
    import rustpy_xlsxwriter

    with fetched(report) as rows:
        names = next(rows)
        records = (dict(zip(names, row, strict=True)) for row in rows)
        rustpy_xlsxwriter.write_worksheet(records, target.name, datetime_format="yyyy-mm-dd hh:mm:ss")


@contextmanager
def fetched(report: Report) -> Iterator[Iterator[tuple[Any, ...]]]:
    """The names of the columns, then the rows as Python has them, from a cursor on the server."""
    with table_of(report) as table, transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute(table.sql, table.params)
        yield plain(table, cursor)


def plain(table: Table, cursor: Any) -> Iterator[tuple[Any, ...]]:
    yield tuple(column.name for column in table.columns)
    for at, order, sku, name, price, units, amount, currency in cursor:
        yield make_naive(at), order, sku, name, float(price), units, float(amount), currency


SIDES = {"watched": watched, "psql": psql, "XlsxWriter": xlsxwriter, "rustpy-xlsxwriter": rustpy}


def main() -> None:
    side, pk = sys.argv[1:]
    app.finalize()
    report = Report.objects.get(pk=pk)
    report.format = side if side in formats.WRITERS else report.format
    with tempfile.NamedTemporaryFile(dir=settings.VAR_DIR) as target:
        start = time.perf_counter()
        SIDES.get(side, ours)(report, cast(BinaryIO, target))
        seconds = time.perf_counter() - start
    sys.stdout.write(json.dumps([seconds, peak()]))


def peak() -> float:
    """Return the most memory this process has had, in megabytes; `ru_maxrss` begins with what its parent had."""
    [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1024


if __name__ == "__main__":
    main()
