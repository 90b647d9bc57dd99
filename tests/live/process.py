"""The process `live` of a test's own, and a page that listens to it."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self
from urllib.parse import urlencode

from myproject.live import tokens
from tests.ports import free_port
from tests.running import last_words, running
from tests.shop import answers, wait_for


class Page:
    """A stream of one page; its attributes are the parts of its channels."""

    def __init__(self, address: str, *channels: tuple[object, ...], person: object = 1) -> None:
        given = [("t", tokens.sign(person, *channel)) for channel in channels]
        self.http = http.client.HTTPConnection(address, timeout=20)
        self.http.request("GET", f"/live/?{urlencode(given)}")
        self.answer = self.http.getresponse()
        self.status = self.answer.status

    def __enter__(self) -> Self:
        assert (self.status, self.event()) == (200, "beat")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self.answer.close()
        self.http.close()

    def event(self) -> str:
        """Return the next event: `beat`, the places of the channels with news, or nothing at the end."""
        name, data = "", ""
        while line := self.answer.readline().decode().strip():
            kind, _, value = line.partition(": ")
            name, data = (value, data) if kind == "event" else (name, value)
        return name or data

    def news(self) -> str:
        """Return the next event that is no beat."""
        return next(event for event in iter(self.event, "never") if event != "beat")


@contextmanager
def live(**environment: str) -> Iterator[str]:
    """Run the process; return its address."""
    address = f"127.0.0.1:{free_port()}"
    with running("python -m myproject.live", LIVE_BIND=address, **environment) as process:
        wait_for(lambda: process.poll() is not None or answers(f"http://{address}/healthz/ready"), "push")
        assert process.poll() is None, last_words()
        yield address
