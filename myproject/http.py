"""HTTP requests to counterparts."""

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from django.utils import timezone

from durable import trace
from durable.errors import PermanentError, TemporaryError, readable

# 4xx codes that are temporary.
WORTH_ANOTHER_TRY = {408, 425, 429}
# Seconds that a counterpart may ask us to wait: one that is mistaken must not stop the work for years.
LONGEST_PAUSE = 3600.0
# Bytes of an answer, unpacked: one that has no end must not fill a worker's memory.
LARGEST_ANSWER = 10 * 2**20


class Refused(PermanentError):
    """The counterpart rejects the request permanently; `status` is its answer."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


def request(method: str, url: str, *, timeout: float = 30, **options: Any) -> requests.Response:
    """Return the answer, 2xx or 304; `timeout` in seconds is for the connection and for each silence after it.

    Raises `TemporaryError`, with the pause that the counterpart asks for, where the same request may work later, and
    `Refused` where it never will. Other `options` are those of the requests library.
    """
    try:
        with trace.call(f"{method} {urlsplit(url).path}"):
            answer = requests.request(method, url, timeout=timeout, allow_redirects=False, stream=True, **options)
            answer._content = _start(answer)
    except requests.RequestException as error:
        raise TemporaryError(f"{method} {url}: {type(error).__name__}") from error
    if answer.status_code < 300 or answer.status_code == requests.codes.not_modified:
        if len(answer.content) > LARGEST_ANSWER:
            raise TemporaryError(f"{method} {url}: AnswerTooLong")
        return answer
    told = f"{method} {url}: {answer.status_code} {_reason(answer)}"
    if answer.status_code >= 500 or answer.status_code in WORTH_ANOTHER_TRY:
        raise TemporaryError(told, retry_after=_pause(answer.headers.get("Retry-After", "")))
    raise Refused(told, answer.status_code)


def _start(answer: requests.Response) -> bytes:
    """Return what the answer says; of one that is too long, the start, which is too long as well."""
    content = bytearray()
    with answer:
        for part in answer.iter_content(2**16):
            content += part
            if len(content) > LARGEST_ANSWER:
                break
    return bytes(content)


def _reason(answer: requests.Response) -> str:
    return readable(answer.text[:200]) or readable(answer.reason or "")


def _pause(header: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, an hour at most, as a number or as a date; else None."""
    if header.isdecimal():
        return min(float(header), LONGEST_PAUSE)
    try:
        until: datetime = parsedate_to_datetime(header)
    except (ValueError, TypeError, OverflowError):
        return None
    if until.tzinfo is None:
        return None
    return min(max(0.0, (until - timezone.now()).total_seconds()), LONGEST_PAUSE)
