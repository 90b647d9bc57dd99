"""Addresses of private files that expire, and files sent in part, so that a broken download can go on."""

import re
from typing import BinaryIO

from django.conf import settings
from django.core import signing
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import http_date

from .models import Report

SIGNER = signing.TimestampSigner(salt="reports.downloads")
# One range; several at once, which nobody needs for one file, are answered with the whole of it, as RFC 9110 allows.
RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def sign(report: Report) -> str:
    return SIGNER.sign(str(report.pk))


def verify(token: str) -> str:
    """Return the id of the report; raises `SignatureExpired`, or `BadSignature` when the token is not ours."""
    return SIGNER.unsign(token, max_age=settings.REPORT_LINK_LASTS)


class Unsatisfiable(Exception):
    """The file has no such bytes."""


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


def send(request: HttpRequest, report: Report, file: BinaryIO) -> HttpResponseBase:
    """Answer with the file, or with the part that is asked for."""
    size = report.size or 0
    try:
        part = wanted(request, report, size)
    except Unsatisfiable:
        file.close()
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    headers = {"Accept-Ranges": "bytes", "ETag": etag(report), "Last-Modified": modified(report)}
    if part is None:
        return FileResponse(file, as_attachment=True, filename=report.filename, headers=headers)
    file.seek(part.start)
    headers |= {
        "Content-Length": str(len(part)),
        "Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}",
    }
    body = Part(file, len(part))
    return FileResponse(body, as_attachment=True, filename=report.filename, headers=headers, status=206)


def wanted(request: HttpRequest, report: Report, size: int) -> range | None:
    """Return which bytes are asked for; None for all of them. Raises `Unsatisfiable` when there are none."""
    found = RANGE.fullmatch(request.headers.get("Range", ""))
    if request.method != "GET" or not found or not any(found.groups()):
        return None
    # What was begun of another file is of no use.
    if request.headers.get("If-Range", etag(report)) not in (etag(report), modified(report)):
        return None
    first, last = found.groups()
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= size:
        raise Unsatisfiable
    return range(start, stop)


def etag(report: Report) -> str:
    """Name the content: no second file is ever stored under the name of the first."""
    return f'"{report.file.name}"'


def modified(report: Report) -> str:
    return http_date(report.finished_at.timestamp()) if report.finished_at else ""
