"""Writing reports. A file appears whole or not at all: the row names it only when it is complete."""

import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from typing import Any, BinaryIO, NamedTuple, cast

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db import connection
from django.db.models import Case, F, QuerySet, Value, When
from django.db.models.functions import Concat, TruncSecond
from django.utils import timezone

from accounts.models import User
from orders.models import OrderItem
from orders.models import Status as OrderStatus

from . import outcomes, personal
from .models import OPEN, Kind, Report

log = logging.getLogger(__name__)

# A file that no row names is perhaps still being written; not for as long as this.
ORPHANED_AFTER = timedelta(days=1)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CHUNK = 500


def ask_for_personal_data(person: User) -> Report:
    """Write down that the person wants their data; while one export is being made, that is the one."""
    report, _ = Report.objects.get_or_create(
        requested_by=person,
        kind=Kind.PERSONAL_DATA,
        status__in=OPEN,
        defaults={"due_at": timezone.now() + settings.REPORT_LEASE},
    )
    return report


def write_report(report: Report) -> bool:
    """Write the report's file and publish it; False when another worker was faster."""
    write, suffix = WRITERS[Kind(report.kind)]
    with tempfile.TemporaryFile() as aside:
        row_count = write(report, aside)
        size = aside.tell()
        aside.seek(0)
        name = default_storage.save(f"reports/{report.pk}{suffix}", File(aside))
    published = outcomes.finish(report, name, row_count=row_count, size=size)
    if not published:
        default_storage.delete(name)
    return published


def remove_old_files() -> int:
    """Remove the files of reports that were kept long enough; return how many.

    The row lets go of its file first: a crash in between leaves a file without a row, which `remove_orphans` finds.
    """
    removed = 0
    while reports := list(Report.objects.to_expire().order_by("finished_at")[:CHUNK]):
        for report in reports:
            if report.mark_expired():
                default_storage.delete(str(report.file.name))
                removed += 1
    log.info("Removed %s files of old reports", removed)
    return removed


def remove_orphans() -> int:
    """Remove files of reports that no row names; return how many. Files that no report wrote are left alone."""
    removed = 0
    for names in batched_files():
        rows = Report.objects.filter(pk__in={name[:36] for name in names}).exclude(file="")
        named = set(rows.values_list("file", flat=True))
        for path in {f"reports/{name}" for name in names} - named:
            if timezone.now() - default_storage.get_modified_time(path) > ORPHANED_AFTER:
                default_storage.delete(path)
                removed += 1
    log.info("Removed %s files that no report names", removed)
    return removed


def batched_files() -> Iterator[list[str]]:
    try:
        names = [name for name in default_storage.listdir("reports")[1] if UUID.match(name)]
    except FileNotFoundError:
        names = []
    yield from (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))


def write_sales(report: Report, target: BinaryIO) -> int:
    return copy_csv(*sales(report).query.sql_with_params(), target)


def write_personal_data(report: Report, target: BinaryIO) -> int:
    return personal.write(report.requested_by, target)


class Writer(NamedTuple):
    """What writes a kind of report: it returns how many rows there were."""

    write: Callable[[Report, BinaryIO], int]
    suffix: str


WRITERS = {
    Kind.SALES: Writer(write_sales, ".csv"),
    Kind.PERSONAL_DATA: Writer(write_personal_data, ".json"),
}


def copy_csv(query: str, params: tuple[Any, ...], target: Any) -> int:
    """Write the rows of a query to a binary file as CSV with a header; return how many there were.

    PostgreSQL writes the CSV itself: five times as fast as rows that pass through Python, in constant memory.
    """
    with connection.cursor() as cursor:
        with cursor.copy(cursor.mogrify(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)", params)) as chunks:
            for chunk in chunks:
                target.write(chunk)
        return int(cursor.rowcount)


def sales(report: Report) -> QuerySet[OrderItem, Any]:
    """One row for each item of the orders that were completed in the report's days, in the shop's time."""
    sold = OrderItem.objects.filter(
        order__status=OrderStatus.COMPLETED,
        order__completed_at__gte=midnight(report.start),
        order__completed_at__lt=midnight(cast(date, report.end) + timedelta(days=1)),
    )
    return sold.order_by("order__completed_at", "pk").values(
        completed_at=TruncSecond("order__completed_at"),
        order_reference=F("order__reference"),
        sku=F("product__sku"),
        product_name=harmless("name"),
        unit_price=F("price"),
        units=F("quantity"),
        amount=F("price") * F("quantity"),
        currency=F("order__currency"),
    )


def harmless(field: str) -> Case:
    """Quote a text that a spreadsheet would take for a formula (OWASP, *CSV Injection*)."""
    return Case(When(**{f"{field}__regex": r"^[=+\-@\t\r]"}, then=Concat(Value("'"), F(field))), default=F(field))


def midnight(day: Any) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))
