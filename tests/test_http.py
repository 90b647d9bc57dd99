"""One request to a counterpart: what it answers, and which of our two errors that is."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
import time_machine

from durable.errors import PermanentError, TemporaryError
from myproject import http


class Counterpart(HTTPServer):
    """Answers each request with the status and headers that the test has set."""

    status = 200
    headers: dict[str, str] = {}
    body = b"as you\nwish"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Counterpart)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.server.status != 304:
            with suppress(ConnectionError):
                self.wfile.write(self.server.body)

    def log_message(self, *args: Any) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def counterpart() -> Iterator[Counterpart]:
    with Counterpart(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("status", [200, 201, 304])
def test_request_returns_the_answer(counterpart: Counterpart, status: int) -> None:
    counterpart.status = status

    assert http.request("GET", counterpart.url).status_code == status


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_request_may_be_repeated_when_the_other_side_has_trouble(counterpart: Counterpart, status: int) -> None:
    counterpart.status = status

    with pytest.raises(TemporaryError, match=f": {status} as you wish") as caught:
        http.request("GET", counterpart.url)

    assert caught.value.retry_after is None


@pytest.mark.parametrize("status", [300, 301, 400, 401, 404, 422])
def test_request_is_refused_for_good_when_we_are_wrong(counterpart: Counterpart, status: int) -> None:
    counterpart.status, counterpart.headers = status, {"Location": "http://127.0.0.1:1/"}

    with pytest.raises(PermanentError, match=f": {status} as you wish") as caught:
        http.request("GET", counterpart.url)

    assert isinstance(caught.value, http.Refused)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        ("Sat, 21 Nov 2026 12:01:00 GMT", 60.0),
        ("Sat, 21 Nov 2020 12:01:00 GMT", 0.0),
        ("31536000", 3600.0),
        ("9" * 400, 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("Sat, 21 Nov 2026 12:01:00 -0000", None),
        (f"Sat, 21 Nov 2026 12:01:00 +{'9' * 30}", None),
        ("soon", None),
        ("-3", None),
        ("", None),
    ],
)
@time_machine.travel("2026-11-21 12:00 +0000", tick=False)
def test_request_tells_how_long_it_was_asked_to_wait(
    counterpart: Counterpart, header: str, seconds: float | None
) -> None:
    counterpart.status, counterpart.headers = 503, {"Retry-After": header}

    with pytest.raises(TemporaryError) as caught:
        http.request("GET", counterpart.url)

    assert caught.value.retry_after == seconds


PACKED = pytest.mark.parametrize(("packed", "headers"), [(bytes, {}), (gzip.compress, {"Content-Encoding": "gzip"})])


@PACKED
def test_answer_that_is_too_long_is_none(
    counterpart: Counterpart, packed: Callable[[bytes], bytes], headers: dict[str, str]
) -> None:
    counterpart.headers, counterpart.body = headers, packed(b"x" * http.LARGEST_ANSWER)
    assert len(http.request("GET", counterpart.url).content) == http.LARGEST_ANSWER
    counterpart.body = packed(b"x" * (http.LARGEST_ANSWER + 1))

    with pytest.raises(TemporaryError, match=f"^GET {counterpart.url}: AnswerTooLong$"):
        http.request("GET", counterpart.url)


@PACKED
@pytest.mark.parametrize(("status", "error"), [(404, http.Refused), (503, TemporaryError)])
def test_of_a_long_reason_the_start_is_read(
    counterpart: Counterpart,
    status: int,
    error: type[Exception],
    packed: Callable[[bytes], bytes],
    headers: dict[str, str],
) -> None:
    counterpart.status, counterpart.headers, counterpart.body = status, headers, packed(b"because " * 10_000_000)

    with pytest.raises(error, match=f": {status} because because"):
        http.request("GET", counterpart.url)


def test_request_may_be_repeated_without_an_answer() -> None:
    with pytest.raises(TemporaryError, match="ConnectionError"):
        http.request("GET", "http://127.0.0.1:1/", timeout=1)
