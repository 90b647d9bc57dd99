"""The ASGI application of the process `live`: server-sent events that tell a page to ask again."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from django.core.signing import BadSignature
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from myproject.bearer import challenge, refusal

from . import metrics
from .hub import Hub, Refused, Stream
from .listener import Listener
from .tokens import Token, read

log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# Seconds: a page that hears nothing for more than two beats polls (static/live.js). A stream ends before its tokens
# would be much too old, so that what somebody may see is decided again. A visitor may be this slow.
BEAT, LASTS, SLOWEST = 5, 600, 10
# Live parts on one page.
MOST_TOKENS = 16
HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    # For nginx, which would collect what is to be sent.
    "x-accel-buffering": "no",
    # No cookie is asked for: the token is what opens a stream, and on a laptop the pages have another port.
    "access-control-allow-origin": "*",
    "x-content-type-options": "nosniff",
    # A stream has a connection of its own, and so no second request for which the process would wait.
    "connection": "close",
}


class Live:
    """Answers `/live/`, the probes and Prometheus."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.listener = Listener(self.hub)
        metrics.STREAMS.set_function(lambda: len(self.hub.streams))
        metrics.HEARS.set_function(lambda: self.listener.hears)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live_through(receive, send)
        elif scope["type"] == "http":
            await self.answer(scope, receive, send)

    async def live_through(self, receive: Receive, send: Send) -> None:
        """Listen from the start of the process to its end."""
        await receive()
        task = asyncio.create_task(self.listener.run())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        task.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async def answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        match scope["path"]:
            case "/live/" if scope["method"] == "GET":
                await self.follow(scope["query_string"], receive, send)
            case "/healthz/live":
                await say(send, 200, "alive")
            case "/healthz/ready" if self.listener.hears:
                await say(send, 200, "ready")
            case "/healthz/ready":
                await say(send, 503, "not ready: database")
            case "/metrics":
                await measure(scope["headers"], send)
            case _:
                await say(send, 404, "There is no such page.")

    async def follow(self, query: bytes, receive: Receive, send: Send) -> None:
        """Send the news of the tokens' channels until the page leaves or the time is up."""
        if not (tokens := tokens_in(query)):
            await refuse(send, 403, "token", "A token is missing, forged or too old.")
        elif not self.listener.hears:
            await refuse(send, 503, "database", "The database does not answer.")
        else:
            stream = Stream(tokens)
            try:
                self.hub.join(stream)
            except Refused as error:
                await refuse(send, error.status, error.reason, str(error))
                return
            leaving = asyncio.create_task(end_with(stream, receive))
            try:
                await write_all(stream, send)
            except TimeoutError:
                log.info("Closed a stream whose reader was too slow")
            finally:
                leaving.cancel()
                self.hub.leave(stream)


async def write_all(stream: Stream, send: Send) -> None:
    await begin(send, 200, HEADERS)
    # At once: by this the page knows that nothing on the way holds events back.
    await write(send, event("", name="beat"))
    until = time.monotonic() + LASTS
    while not stream.is_over and time.monotonic() < until:
        news = await stream.wait(BEAT)
        metrics.PUSHES.inc(bool(news))
        await write(send, event(" ".join(map(str, news))) if news else event("", name="beat"))
    await send({"type": "http.response.body"})


async def end_with(stream: Stream, receive: Receive) -> None:
    """End the stream when its page has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.end()


def tokens_in(query: bytes) -> list[Token]:
    """Return the tokens of the query; none if one of them is not genuine."""
    given = [value for name, value in parse_qsl(query.decode("latin-1")) if name == "t"]
    try:
        return [read(token) for token in given] if len(given) <= MOST_TOKENS else []
    except (BadSignature, TypeError, ValueError):
        return []


def event(data: str, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data}\n\n".encode()


async def write(send: Send, data: bytes) -> None:
    """Raise `TimeoutError` when the reader does not take it."""
    async with asyncio.timeout(SLOWEST):
        await send({"type": "http.response.body", "body": data, "more_body": True})


async def begin(send: Send, status: int, headers: dict[str, str]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def refuse(send: Send, status: int, reason: str, text: str) -> None:
    metrics.REFUSED.labels(reason).inc()
    await say(send, status, text)


async def measure(headers: Iterable[tuple[bytes, bytes]], send: Send) -> None:
    """Answer as the other processes do at `/metrics`."""
    if status := refusal(dict(headers).get(b"authorization", b"").decode("latin-1")):
        await say(send, status, status.phrase, challenge(status))
        return
    await begin(send, 200, {"content-type": CONTENT_TYPE_LATEST})
    await send({"type": "http.response.body", "body": generate_latest(metrics.COUNTED)})


async def say(send: Send, status: int, text: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
    await begin(send, status, {**HEADERS, "content-type": "text/plain; charset=utf-8", **headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})


application = Live()
