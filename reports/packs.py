"""The month-end pack: reports made side by side, then bundled as one ZIP.

Celery's word for this is a chord, which is not reliable enough. On the database result backend a chord counts down a
row: when one part is delivered twice, the row is deleted before all parts have counted, and the body never runs; on
Redis the body can run several times. A part that fails permanently keeps the body from running, and a body whose
message is lost is never queued again. So the parts are rows, and so is the pack: the end of each part queues it,
`claim_complete` claims it only when all parts have ended, and a sweep queues packs whose last message was lost.

A report that could not be made does not hold up the others: the pack is ready without it, and says so in its index,
on its page and in the notice. Only when none could be made the pack has failed.
"""

import csv
import hashlib
import io
import logging
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Sequence
from datetime import date, timedelta
from functools import partial
from typing import IO, BinaryIO, NamedTuple
from uuid import UUID

from django.core.files import File
from django.db import transaction

from accounts.models import User
from accounts.services import notify, staff_with
from durable.errors import TemporaryError
from myproject import texts
from myproject.storage import files

from .models import (
    MISSING,
    OPEN,
    OPEN_PACK,
    WITH_DATES,
    Format,
    Kind,
    Pack,
    PackQuerySet,
    PackStatus,
    Report,
    hold,
    private_files,
)

log = logging.getLogger(__name__)

CHUNK = 1024 * 1024
INDEX = "index.csv"
COLUMNS = ["file", "report", "first_day", "last_day", "rows", "bytes", "sha256", "note"]
BROKEN = "The pack could not be bundled because of an error of ours. Ask for it again."


class Part(NamedTuple):
    """A report of the pack: its kind, its format, and how many months back it reaches."""

    kind: Kind
    format: Format
    months_back: int = 0


TO_READ = Format.XLSX if Format.PDF in MISSING else Format.PDF
# The reports of a pack: to read, to calculate with, and the same month a year ago to compare with.
PARTS = [
    Part(Kind.SALES_BY_DAY, TO_READ),
    Part(Kind.SALES_BY_DAY, TO_READ, months_back=12),
    Part(Kind.SALES_BY_CATEGORY, TO_READ),
    Part(Kind.SALES_BY_PRODUCT, Format.XLSX),
    Part(Kind.SALES_BY_CUSTOMER, Format.XLSX),
    Part(Kind.SALES, Format.CSV),
    Part(Kind.STOCK, Format.XLSX),
]


@transaction.atomic
def ask_for_pack(person: User, month: date) -> Pack:
    """Create the pack and its reports, or return the same one if it is open. Raises `TooMany`."""
    hold(person)
    if known := Pack.objects.filter(requested_by=person, month=month, status__in=OPEN_PACK).first():
        return known
    Report.objects.make_room(person, len(PARTS))
    pack = Pack.objects.create(requested_by=person, month=month)
    Report.objects.bulk_create(new_member(pack, part) for part in PARTS)
    return pack


def new_member(pack: Pack, part: Part) -> Report:
    start, end = month_before(pack.month, part.months_back) if part.kind in WITH_DATES else (None, None)
    what = {"kind": part.kind, "format": part.format, "start": start, "end": end}
    return Report(requested_by=pack.requested_by, pack=pack, **what, **Report.lease.fresh())


def month_before(month: date, count: int) -> tuple[date, date]:
    """Return the first and the last day of the month that many months before."""
    months = month.year * 12 + month.month - 1 - count
    start = date(months // 12, months % 12 + 1, 1)
    return start, (start + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def open_members(pack: Pack) -> list[UUID]:
    return list(pack.members.filter(status__in=OPEN).order_by("pk").values_list("pk", flat=True))


def write_pack(pack: Pack) -> bool:
    """Bundle the reports that are ready and publish the pack; False if another worker was faster.

    Raises `TemporaryError` when the disk is full.
    """
    members = list(pack.members.order_by("kind", "-start"))
    try:
        with tempfile.TemporaryFile() as aside:
            missing = write_zip(members, aside)
            if missing == len(members):
                return bool(fail(pack.held(), "None of its reports could be made."))
            size = aside.tell()
            aside.seek(0)
            name = files.save_whole(f"packs/{pack.pk}-{pack.attempts}.zip", File(aside), private_files())
    except OSError as error:
        raise TemporaryError(f"The pack could not be written: {error.strerror or type(error).__name__}.") from error
    published = finish(pack, name, size=size, missing_count=missing)
    if not published:
        private_files().delete(name)
    return published


def write_zip(members: Sequence[Report], target: BinaryIO) -> int:
    """Write the files and an index, in constant memory; return how many reports have no file."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        rows = [add(archive, report) for report in members]
        archive.writestr(INDEX, index(rows))
    return sum(not row[0] for row in rows)


def add(archive: zipfile.ZipFile, report: Report) -> list[str]:
    """Copy the report's file, if it has one, into the archive; return its line of the index."""
    if not report.is_ready:
        return line(report, note=report.error or f"It is {report.get_status_display().lower()}.")
    try:
        source = report.file.open()
    except FileNotFoundError:
        return line(report, note="Its file was removed.")
    except OSError as error:
        return line(report, note=f"Its file cannot be read: {error.strerror or type(error).__name__}.")
    # The size is not known yet, so ZIP64 has to be forced.
    with source, archive.open(report.filename, "w", force_zip64=True) as target:
        return line(report, file=report.filename, digest=copy(source, target))


def copy(source: File, target: IO[bytes]) -> str:
    """Copy in chunks; return the SHA-256."""
    digest = hashlib.sha256()
    for chunk in iter(partial(source.read, CHUNK), b""):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


def line(report: Report, file: str = "", digest: str = "", note: str = "") -> list[str]:
    counts = [report.row_count, report.size] if file else [None, None]
    cells = [file, report.get_kind_display(), report.start, report.end, *counts, digest, note]
    return ["" if cell is None else str(cell) for cell in cells]


def index(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *(map(texts.csv_cell, row) for row in rows)])
    return texts.BOM + text.getvalue()


# --- The outcome: the transaction that ends the row also writes the notice, so that it is sent once ---


@transaction.atomic
def finish(pack: Pack, name: str, *, size: int, missing_count: int) -> bool:
    """Publish the file of that name and write the notice; False if the pack had ended before."""
    published = pack.held().close(PackStatus.READY, file=name, size=size, missing_count=missing_count)
    if published:
        without = f"{missing_count} of its reports could not be made; the index says why. " if missing_count else ""
        notify_of(pack, "is ready", f"{without}It is one ZIP file with an index.")
    return bool(published)


@transaction.atomic
def fail(rows: PackQuerySet, reason: str = BROKEN) -> list[Pack]:
    """End those of these packs that are open, and write their notices; return the packs."""
    failed = rows.close(PackStatus.FAILED, error=reason)
    for pack in failed:
        notify_of(pack, "could not be made", reason)
    return failed


def notify_of(pack: Pack, what: str, message: str) -> None:
    if staff_with("reports.view_pack").filter(pk=pack.requested_by_id).exists():
        notify(pack.requested_by, f"{pack.title} {what}", message, pack.get_absolute_url())


# --- Removal of files ---


def remove_old_files() -> int:
    """Remove the files of packs after their retention period; return how many."""
    old = [pack for pack in Pack.objects.to_expire().order_by("finished_at")[:500] if pack.mark_expired()]
    for pack in old:
        private_files().delete(str(pack.file.name))
    log.info("Removed %s files of old packs", len(old))
    return len(old)


def remove_orphans() -> int:
    """Remove files of packs that no row names; return how many. Other files are left alone."""
    return files.remove_orphans("packs", files.BY_UUID, named, private_files())


def named(paths: Collection[str]) -> set[str]:
    return set(Pack.objects.filter(file__in=paths).values_list("file", flat=True))


def remove_packs(person: User) -> None:
    """Remove the person's packs with all their files, including an unfinished one of a killed worker."""
    packs = Pack.objects.of(person)
    # From here on no worker can publish one.
    packs.close(PackStatus.FAILED, error="The account was deleted.")
    ids = tuple(str(pk) for pk in packs.values_list("pk", flat=True))
    # Delete the file first: after a crash, the row still names it.
    for name in files.files_in("packs", private_files()) if ids else []:
        if name.startswith(ids):
            private_files().delete(f"packs/{name}")
    packs.delete()
