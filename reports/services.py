"""Writing reports. A file is published whole or not at all: the row names it only when it is complete."""

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
from .models import ASKED_FOR, MAX_ATTEMPTS, MISSING, OPEN, SAME, Kind, Report, hold, private_files

log = logging.getLogger(__name__)

CHUNK = 500
# Errors that may be gone a minute later.
SHORTAGES = (TemporaryError, MemoryError, OSError, OperationalError, InterfaceError)

Progress = Callable[[int], None]


@transaction.atomic
def ask_for(person: User, wants_mail: bool = False, **what: Any) -> Report:
    """Create the report, or return the same one if it is open. Raises `TooMany`."""
    asked = {name: what.get(name) for name in SAME}
    hold(person)
    report = Report.objects.filter(ASKED_FOR, requested_by=person, status__in=OPEN, **asked).first()
    if report is None:
        Report.objects.make_room(person)
        return Report.objects.create(requested_by=person, wants_mail=wants_mail, **asked, **Report.lease.fresh())
    if wants_mail:
        Report.objects.filter(pk=report.pk).update(wants_mail=True)
    return report


class NotOffered(Exception):
    """This installation cannot write the format any more."""


def ask_again(person: User, report: Report) -> Report:
    """Ask for the same once more. Raises `NotOffered` or `TooMany`."""
    if report.format in MISSING:
        raise NotOffered(f"{report.get_format_display()} is not available here any more. Please choose another format.")
    return ask_for(person, report.wants_mail, **{name: getattr(report, name) for name in SAME})


def write_report(report: Report) -> bool:
    """Write the report's file and publish it; False if it was cancelled, or another worker has taken it over.

    Raises `PermanentError` if the format cannot hold so many rows.
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
    """Remove the files of workers that died before publishing them; from now on none of those can be published."""
    for attempt in range(1, report.attempts):
        private_files().delete(file_name(report, attempt))


def file_name(report: Report, attempt: int) -> str:
    return f"reports/{report.pk}-{attempt}.{report.format}"


def put_off(report: Report, error: Exception, reason: str = "") -> bool:
    """Schedule a retry of the report, for lack of a resource; False if that was the last attempt."""
    # The connection may have failed; a task that is applied in place may be inside a transaction.
    if not connection.in_atomic_block:
        close_old_connections()
    reason = reason or shortage(error)
    if report.mark_put_off(reason):
        return True
    outcomes.fail(report.held(), f"{reason} We tried {MAX_ATTEMPTS} times.")
    return False


def shortage(error: Exception) -> str:
    """Describe the missing resource for the person."""
    if isinstance(error, TemporaryError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The worker ran out of memory."
    if isinstance(error, OSError):
        return f"The file could not be written: {error.strerror or type(error).__name__}."
    return "The database did not answer."


def remove_old_files() -> int:
    """Remove the files of reports after their retention period; return how many.

    The row is cleared first: a crash in between leaves a file without a row, which `remove_orphans` finds.
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
    """Remove files of reports that no row names; return how many. Other files are left alone."""
    return files.remove_orphans("reports", files.BY_UUID, named, private_files())


def named(paths: Collection[str]) -> set[str]:
    """Return those of these files that rows name, found by the primary keys that start the names."""
    rows = Report.objects.filter(pk__in={PurePath(path).name[:36] for path in paths}).exclude(file="")
    return set(rows.values_list("file", flat=True))


def write(report: Report, target: BinaryIO, progress: Progress) -> tuple[int, dict[str, Any] | None]:
    """Write the report to a binary file; return the number of rows and the preview for its page."""
    if report.kind == Kind.PERSONAL_DATA:
        return personal.write(report.requested_by, target, progress), None
    with kinds.table_of(report) as table:
        return formats.write(report, table, target, progress), table.preview()
