"""Writing reports. A file appears whole or not at all: the row names it only when it is complete."""

import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import Any, BinaryIO, NamedTuple, cast

from django.conf import settings
from django.core.files import File
from django.core.files.storage import FileSystemStorage
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.db.models import Case, F, QuerySet, Value, When
from django.db.models.functions import Concat, TruncSecond
from django.utils import timezone
from django.utils.http import content_disposition_header

from accounts.models import User
from myproject.errors import TemporaryError
from orders.models import OrderItem
from orders.models import Status as OrderStatus

from . import outcomes, personal
from .heartbeat import Heartbeat
from .models import ASKED_FOR, MAX_ATTEMPTS, OPEN, SAME, Cancelled, Kind, Report, private_files

log = logging.getLogger(__name__)

# A file that no row names is perhaps still being written; not for as long as this.
ORPHANED_AFTER = timedelta(days=1)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CHUNK = 500
# Rows between two looks at whether they are still wanted.
ROWS_AT_ONCE = 1_000
# What there may be enough of a minute later.
SHORTAGES = (TemporaryError, MemoryError, OSError, OperationalError, InterfaceError)

Progress = Callable[[int], None]


def ask_for(person: User, wants_mail: bool = False, **what: Any) -> Report:
    """Write down what the person wants; while the same report is open, that is the one."""
    report, is_new = Report.objects.filter(ASKED_FOR).get_or_create(
        requested_by=person,
        status__in=OPEN,
        **{name: what.get(name) for name in SAME},
        defaults={"due_at": timezone.now() + settings.REPORT_LEASE, "wants_mail": wants_mail},
    )
    if wants_mail and not is_new:
        Report.objects.filter(pk=report.pk).update(wants_mail=True)
    return report


def ask_again(person: User, report: Report) -> Report:
    return ask_for(person, report.wants_mail, **{name: getattr(report, name) for name in SAME})


def write_report(report: Report) -> bool:
    """Write the report's file and publish it; False when it was cancelled, or another worker goes on with it."""
    write, suffix, expected = WRITERS[Kind(report.kind)]
    remove_unpublished(report, suffix)
    try:
        with tempfile.TemporaryFile() as aside, Heartbeat(report) as heartbeat:
            heartbeat.rows_total = expected(report)
            row_count = write(report, aside, heartbeat.progress)
            size = aside.tell()
            aside.seek(0)
            name = store(report, suffix, File(aside))
    except Cancelled:
        log.info("Report %s is no longer wanted from this worker", report.pk)
        return False
    published = outcomes.finish(report, name, row_count=row_count, size=size)
    if not published:
        private_files().delete(name)
    return published


def store(report: Report, suffix: str, file: File) -> str:
    """Store the file under a name that only this attempt uses; raises `TemporaryError` when the storage refuses."""
    name = file_name(report, report.attempts, suffix)
    try:
        return private_files().save(name, file)
    # Each storage has errors of its own.
    except Exception as error:
        with suppress(Exception):
            private_files().delete(name)
        why = getattr(error, "strerror", None) or type(error).__name__
        raise TemporaryError(f"The storage did not take the file: {why}.") from error


def remove_unpublished(report: Report, suffix: str) -> None:
    """Remove what a worker left behind that died while it stored the file; from now on none of them can publish it."""
    for attempt in range(1, report.attempts):
        private_files().delete(file_name(report, attempt, suffix))


def file_name(report: Report, attempt: int, suffix: str) -> str:
    return f"reports/{report.pk}-{attempt}{suffix}"


def open_file(report: Report) -> BinaryIO:
    """Open the report's file; raises `FileNotFoundError` when it was removed."""
    return cast(BinaryIO, private_files().open(str(report.file.name)))


def address_elsewhere(report: Report) -> str | None:
    """Return the signed address, which expires, at which the storage serves the file itself; None where we do."""
    storage = private_files()
    if isinstance(storage, FileSystemStorage):
        return None
    heading = content_disposition_header(True, report.filename)
    return storage.url(str(report.file.name), parameters={"ResponseContentDisposition": heading})  # type: ignore[call-arg]


def put_off(report: Report, error: Exception, reason: str = "") -> bool:
    """Have the report tried again later, for lack of something; False when that was the last attempt."""
    # The connection may be what has failed; a task that is applied in place may stand within a transaction.
    if not connection.in_atomic_block:
        close_old_connections()
    reason = reason or shortage(error)
    if report.mark_put_off(reason):
        return True
    outcomes.fail(report, f"{reason} It was tried {MAX_ATTEMPTS} times.")
    return False


def shortage(error: Exception) -> str:
    """Say to a person what there was not enough of."""
    if isinstance(error, TemporaryError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The memory of the worker did not suffice."
    if isinstance(error, OSError):
        return f"The file could not be written: {error.strerror or type(error).__name__}."
    return "The database did not answer."


def remove_old_files() -> int:
    """Remove the files of reports that were kept long enough; return how many.

    The row lets go of its file first: a crash in between leaves a file without a row, which `remove_orphans` finds.
    """
    removed = 0
    while reports := list(Report.objects.to_expire().order_by("finished_at")[:CHUNK]):
        for report in reports:
            if report.mark_expired():
                private_files().delete(str(report.file.name))
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
            if timezone.now() - private_files().get_modified_time(path) > ORPHANED_AFTER:
                private_files().delete(path)
                removed += 1
    log.info("Removed %s files that no report names", removed)
    return removed


def batched_files() -> Iterator[list[str]]:
    try:
        names = [name for name in private_files().listdir("reports")[1] if UUID.match(name)]
    except FileNotFoundError:
        names = []
    yield from (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))


def write_sales(report: Report, target: BinaryIO, progress: Progress) -> int:
    return copy_csv(*sales(report).query.sql_with_params(), target, progress)


def write_personal_data(report: Report, target: BinaryIO, progress: Progress) -> int:
    return personal.write(report.requested_by, target, progress)


def expected_sales(report: Report) -> int:
    """Return about how many rows there will be, by the planner's statistics: to count them takes far longer."""
    plan = json.loads(sales(report).explain(format="json"))
    return int(plan[0]["Plan"]["Plan Rows"])


def not_known(report: Report) -> None:
    return None


class Writer(NamedTuple):
    """What writes a kind of report: it returns how many rows there were, `expected` about how many there will be."""

    write: Callable[[Report, BinaryIO, Progress], int]
    suffix: str
    expected: Callable[[Report], int | None]


WRITERS = {
    Kind.SALES: Writer(write_sales, ".csv", expected_sales),
    Kind.PERSONAL_DATA: Writer(write_personal_data, ".json", not_known),
}


def copy_csv(query: str, params: tuple[Any, ...], target: BinaryIO, progress: Progress) -> int:
    """Write the rows of a query to a binary file as CSV with a header; return how many there were.

    PostgreSQL writes the CSV itself: five times as fast as rows that pass through Python, in constant memory.
    """
    done = 0
    with connection.cursor() as cursor:
        with cursor.copy(cursor.mogrify(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)", params)) as lines:
            while chunk := list(islice(lines, ROWS_AT_ONCE)):
                target.write(b"".join(chunk))
                progress(done := done + len(chunk))
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
