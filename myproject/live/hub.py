"""The open pages, and what each of them wants to know."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from .tokens import SECONDS, Token

# Browsers close the connection of a page that is out of sight, so this is many windows side by side.
MOST_OF_ONE = 20
MOST = 10_000
# The channel by which the database says of whom the streams end (`endings.py`).
END = "end"


class Refused(Exception):
    """The page asks for itself again, and gets new tokens where it still may."""

    status, reason = 403, "token"


class TooMany(Refused):
    """This person, or all together, have as many pages open as one process serves."""

    status, reason = 429, "full"


class Stream:
    """One open page; news that it has not taken yet are only remembered, so a slow reader costs no memory."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.news: set[int] = set()
        self.is_over = False
        self._woken = asyncio.Event()

    @property
    def persons(self) -> set[str]:
        return {token.person for token in self.tokens}

    def tell(self, place: int) -> None:
        self.news.add(place)
        self._woken.set()

    def end(self) -> None:
        self.is_over = True
        self._woken.set()

    async def wait(self, seconds: float) -> list[int]:
        """Return the places of the tokens whose channel has news; empty when the time is up or the stream is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return []
        self._woken.clear()
        news, self.news = sorted(self.news), set()
        return news


class Hub:
    """Brings the news of each channel to the streams that want them."""

    def __init__(self) -> None:
        self.streams: set[Stream] = set()
        self._wanted: dict[str, set[tuple[Stream, int]]] = defaultdict(set)
        self._persons: Counter[str] = Counter()
        self._since = 0.0
        self._ended: dict[str, float] = {}

    def begin(self) -> None:
        """Refuse all tokens of before: whose end was told then, nobody has heard."""
        self._since, self._ended = time.time(), {}

    def join(self, stream: Stream) -> None:
        """Raise `Refused` for a token of before its person's end, and `TooMany` when there is no room."""
        if any(token.made_at <= self._ended.get(token.person, self._since) for token in stream.tokens):
            raise Refused("Load the page again.")
        if len(self.streams) >= MOST or any(self._persons[person] >= MOST_OF_ONE for person in stream.persons):
            raise TooMany("Too many open pages.")
        self.streams.add(stream)
        self._persons.update(stream.persons)
        for place, token in enumerate(stream.tokens):
            self._wanted[token.channel].add((stream, place))

    def leave(self, stream: Stream) -> None:
        self.streams.remove(stream)
        self._persons -= Counter(stream.persons)
        for place, token in enumerate(stream.tokens):
            self._wanted[token.channel].discard((stream, place))
            if not self._wanted[token.channel]:
                del self._wanted[token.channel]

    def tell(self, channel: str) -> None:
        kind, _, rest = channel.partition(":")
        if kind == END:
            self.end(rest)
            return
        for name in prefixes(channel):
            for stream, place in self._wanted.get(name, ()):
                stream.tell(place)

    def end(self, person: str) -> None:
        """End the person's streams, and refuse the tokens that were made until now for as long as they are valid."""
        now = time.time()
        self._ended = {name: at for name, at in self._ended.items() if at > now - SECONDS} | {person: now}
        for stream in self.streams:
            if person in stream.persons:
                stream.end()

    def end_all(self) -> None:
        for stream in self.streams:
            stream.end()


def prefixes(channel: str) -> Iterator[str]:
    """Yield `orders`, `orders:7` and `orders:7:42` for the last of them."""
    parts = channel.split(":")
    for count in range(1, len(parts) + 1):
        yield ":".join(parts[:count])
