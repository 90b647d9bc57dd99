"""Expiring links to private files, and range requests, so that an interrupted download can resume."""

import re
from typing import Any, BinaryIO, cast

from django.conf import settings
from django.contrib import messages
from django.core import signing
from django.core.files.storage import FileSystemStorage
from django.db.models import QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import content_disposition_header, http_date
from django.views.decorators.cache import cache_control

from durable.errors import TemporaryError

from .models import Pack, Report, private_files

Row = Report | Pack
MODELS = {"report": Report, "pack": Pack}
SIGNER = signing.TimestampSigner(salt="reports.downloads")
# A single range; a request for several gets the whole file, as RFC 9110 allows.
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@cache_control(private=True, no_store=True)
def give_out(request: HttpRequest, row: Row) -> HttpResponse:
    """Redirect to the file of a report or pack that the person may read."""
    if not row.is_ready:
        raise Http404("This is not ready.")
    try:
        return redirect(address(row))
    except TemporaryError as error:
        messages.error(request, f"The file is not available at the moment. {error}")
        return redirect(row)


def address(row: Row) -> str:
    """Return an expiring address of the row's file: our own, or that of a storage that serves files itself.

    Raises `TemporaryError` when such a storage cannot be asked.
    """
    storage = private_files()
    if isinstance(storage, FileSystemStorage):
        return reverse("reports:file", args=[sign(row)])
    heading = {"ResponseContentDisposition": content_disposition_header(True, row.filename)}
    lasts = int(settings.REPORT_LINK_LASTS.total_seconds())
    return storage.url(str(row.file.name), parameters=heading, expire=lasts)  # type: ignore[call-arg]


def sign(row: Row) -> str:
    return SIGNER.sign(f"{row._meta.model_name}-{row.pk}")


def find(token: str) -> Row:
    """Return the row that the token names; raises `BadSignature` when the token is not ours, or `SignatureExpired`.

    Raises `ObjectDoesNotExist` when the row is gone.
    """
    name, _, pk = SIGNER.unsign(token, max_age=settings.REPORT_LINK_LASTS).partition("-")
    if name not in MODELS:
        # Links of the previous release name no model: they are all reports.
        raise signing.BadSignature(token)
    rows: QuerySet[Any] = MODELS[name]._default_manager.all()
    return cast(Row, rows.select_related("requested_by").get(pk=pk))


def open_file(row: Row) -> BinaryIO:
    """Open the row's file; raises `FileNotFoundError` when it was removed."""
    return cast(BinaryIO, private_files().open(str(row.file.name)))


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
