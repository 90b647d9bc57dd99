"""Marks that tasks leave for an experiment to count, in the lab's own Redis."""

from functools import cache
from urllib.parse import unquote, urlsplit

from django.conf import settings
from redis import Redis

PREFIX = "lab:"


@cache
def _redis() -> Redis:
    address = urlsplit(settings.CELERY_BROKER_URL)
    return Redis(unix_socket_path=unquote(address.netloc + address.path))


def leave(name: str, text: str = "x") -> None:
    _redis().rpush(PREFIX + name, text)


def left(name: str) -> list[str]:
    """Return the marks of that name, the oldest first."""
    return [mark.decode() for mark in _redis().lrange(PREFIX + name, 0, -1)]  # type: ignore[union-attr]


def clear() -> None:
    for key in _redis().scan_iter(f"{PREFIX}*"):
        _redis().delete(key)
