"""Writing reports. A file appears whole or not at all: the row names it only when it is complete."""

import logging
import tempfile
from collections.abc import Callable, Collection
from pathlib import PurePath
from typing import Any, BinaryIO

from django.core.files import File
from django.db import InterfaceError, OperationalError, close_old_connections, connection, transaction

from accounts.models import User
from durable.errors import TemporaryError
from durable.leases import LeaseLost
from myproject.storage import files

from . import formats, kinds, outcomes, personal
from .heartbeat import Heartbeat
from .models import ASKED_FOR, MAX_ATTEMPTS, OPEN, SAME, Kind, Report, hold, private_files

log = logging.getLogger(__name__)

CHUNK = 500
# What there may be enough of a minute later.
SHORTAGES = (TemporaryError, MemoryError, OSError, OperationalError, InterfaceError)

Progress = Callable[[int], None]


@transaction.atomic
def ask_for(person: User, wants_mail: bool = False, **what: Any) -> Report:
    """Write down what the person wants; while the same report is open, that is the one. Raises `TooMany`."""
    asked = {name: what.get(name) for name in SAME}
    hold(person)
    report = Report.objects.filter(ASKED_FOR, requested_by=person, status__in=OPEN, **asked).first()
    if report is None:
        Report.objects.make_room(person)
        return Report.objects.create(requested_by=person, wants_mail=wants_mail, **asked, **Report.lease.fresh())
    if wants_mail:
        Report.objects.filter(pk=report.pk).update(wants_mail=True)
    return report


def ask_again(person: User, report: Report) -> Report:
    return ask_for(person, report.wants_mail, **{name: getattr(report, name) for name in SAME})


def write_report(report: Report) -> bool:
    """Write the report's file and publish it; False when it was cancelled, or another worker goes on with it.

    Raises `PermanentError` where no file can be made of so many rows.
    """
    remove_unpublished(report)
    try:
        with tempfile.TemporaryFile() as aside, Heartbeat(report) as heartbeat:
            heartbeat.rows_total = kinds.rows_expected(report)
            row_count, preview = write(report, aside, heartbeat.progress)
            size = aside.tell()
            aside.seek(0)
            name = files.save_whole(file_name(report, report.attempts), File(aside), private_files())
    except LeaseLost as error:
        log.info("%s", error)
        return False
    published = outcomes.finish(report, name, row_count=row_count, size=size, preview=preview)
    if not published:
        private_files().delete(name)
    return published


def remove_unpublished(report: Report) -> None:
    """Remove what a worker left behind that died while it stored the file; from now on none of them can publish it."""
    for attempt in range(1, report.attempts):
        private_files().delete(file_name(report, attempt))


def file_name(report: Report, attempt: int) -> str:
    return f"reports/{report.pk}-{attempt}.{report.format}"


def put_off(report: Report, error: Exception, reason: str = "") -> bool:
    """Have the report tried again later, for lack of something; False when that was the last attempt."""
    # The connection may be what has failed; a task that is applied in place may stand within a transaction.
    if not connection.in_atomic_block:
        close_old_connections()
    reason = reason or shortage(error)
    if report.mark_put_off(reason):
        return True
    outcomes.fail(report.held(), f"{reason} It was tried {MAX_ATTEMPTS} times.")
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
    return files.remove_orphans("reports", files.BY_UUID, named, private_files())


def named(paths: Collection[str]) -> set[str]:
    """Return which of these files rows name; found by their keys, which the names begin with."""
    rows = Report.objects.filter(pk__in={PurePath(path).name[:36] for path in paths}).exclude(file="")
    return set(rows.values_list("file", flat=True))


def write(report: Report, target: BinaryIO, progress: Progress) -> tuple[int, dict[str, Any] | None]:
    """Write the report to a binary file; return how many rows there were, and what its page shows of them."""
    if report.kind == Kind.PERSONAL_DATA:
        return personal.write(report.requested_by, target, progress), None
    with kinds.table_of(report) as table:
        return formats.write(report, table, target, progress), table.preview()
