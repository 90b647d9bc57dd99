"""Expiring links to private files, and range requests, so that an interrupted download can resume."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, BinaryIO, cast
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.core.files.storage import FileSystemStorage
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.http import content_disposition_header, http_date
from django.views.decorators.cache import cache_control

from accounts.models import User

from .models import Pack, Report, private_files

Row = Report | Pack
READABLE: dict[str, Callable[[User], Any]] = {"report": Report.objects.readable_by, "pack": Pack.objects.of}
# A storage asks for no permission: long enough to begin, since a download that has begun goes on.
STORAGE_LINK_LASTS = timedelta(seconds=60)
SIGNER = signing.TimestampSigner(salt="reports.downloads")
# A single range; a request for several gets the whole file, as RFC 9110 allows.
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def own_report(request: HttpRequest, pk: UUID) -> Report:
    """Load a report that the person may read: staff cannot read other people's, and staff reports need staff rights."""
    report = get_object_or_404(Report.objects.readable_by(request.user).select_related("customer"), pk=pk)
    if not may_see(request.user, report):
        raise PermissionDenied
    return report


def may_see(person: User | AnonymousUser, row: Row) -> bool:
    """Return whether the person may see their rows of this kind; those for staff need the right to. Makes queries."""
    if not row.is_for_staff:
        return person.is_active
    return person.is_staff and person.has_perm(f"reports.view_{row._meta.model_name}")


@cache_control(private=True, no_store=True)
def give_out(request: HttpRequest, row: Row) -> HttpResponse:
    """Redirect to the file of a report or pack that the person may read."""
    if not row.is_ready:
        raise Http404("This is not ready.")
    return redirect(address(row, request.user))


def address(row: Row, person: User | AnonymousUser) -> str:
    """Return an expiring address of the row's file for this person."""
    return reverse("reports:file", args=[sign(row, person)])


def sign(row: Row, person: User | AnonymousUser) -> str:
    return SIGNER.sign(f"{row._meta.model_name}-{person.pk}-{row.pk}")


def find(token: str) -> Row:
    """Return the row that the token names, if its person may still read it: the link must not outlive a permission.

    Raises `BadSignature` when the token is not ours, `SignatureExpired`, or `ObjectDoesNotExist`.
    """
    name, _, rest = SIGNER.unsign(token, max_age=settings.REPORT_LINK_LASTS).partition("-")
    person_pk, _, pk = rest.partition("-")
    if name not in READABLE or not person_pk.isdecimal():
        # Links of the release before name no person.
        raise signing.BadSignature(token)
    person = User.objects.get(pk=person_pk)
    row: Row = READABLE[name](person).get(pk=pk)
    if not (row.is_ready and may_see(person, row)):
        raise ObjectDoesNotExist("It is not ready, or not to be read by this person any more.")
    return row


def answer(request: HttpRequest, row: Row) -> HttpResponseBase:
    """Answer with the file, or lead to where a storage serves it itself.

    Raises `FileNotFoundError` when it was removed, and `TemporaryError` when such a storage cannot be asked.
    """
    storage = private_files()
    if isinstance(storage, FileSystemStorage):
        return send(request, row, cast(BinaryIO, storage.open(str(row.file.name))))
    heading = {"ResponseContentDisposition": content_disposition_header(True, row.filename)}
    lasts = int(STORAGE_LINK_LASTS.total_seconds())
    return redirect(storage.url(str(row.file.name), parameters=heading, expire=lasts))  # type: ignore[call-arg]


class Unsatisfiable(Exception):
    """The requested range is outside the file."""


class Part:
    """The next `length` bytes of a file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self.file = file
        self.left = length

    def read(self, size: int) -> bytes:
        block = self.file.read(min(size, self.left))
        self.left -= len(block)
        return block

    def close(self) -> None:
        self.file.close()


def send(request: HttpRequest, row: Row, file: BinaryIO) -> HttpResponseBase:
    """Answer with the file, or with the requested range."""
    size = row.size or 0
    try:
        part = wanted(request, row, size)
    except Unsatisfiable:
        file.close()
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    headers = {"Accept-Ranges": "bytes", "ETag": etag(row), "Last-Modified": modified(row)}
    if part is None:
        return FileResponse(file, as_attachment=True, filename=row.filename, headers=headers)
    file.seek(part.start)
    headers |= {
        "Content-Length": str(len(part)),
        "Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}",
    }
    body = Part(file, len(part))
    return FileResponse(body, as_attachment=True, filename=row.filename, headers=headers, status=206)


def wanted(request: HttpRequest, row: Row, size: int) -> range | None:
    """Return the requested range, or None for the whole file. Raises `Unsatisfiable`."""
    found = RANGE.fullmatch(request.headers.get("Range", ""))
    if request.method != "GET" or not found or not any(found.groups()):
        return None
    # The client has a part of another file.
    if request.headers.get("If-Range", etag(row)) not in (etag(row), modified(row)):
        return None
    first, last = found.groups()
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= size:
        raise Unsatisfiable
    return range(start, stop)


def etag(row: Row) -> str:
    """Derive the ETag from the file's name, which is never reused."""
    return f'"{row.file.name}"'


def modified(row: Row) -> str:
    return http_date(row.finished_at.timestamp()) if row.finished_at else ""
