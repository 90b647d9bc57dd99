"""What a task did: which rows it claimed, and what it asked of the world outside.

Nothing is collected unless `begin` was called in this context, as a recorder does at the start of a task.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from django.db import models


@dataclass
class Call:
    """A request to a counterpart; `about` is the label of the row that it was for, or empty."""

    what: str
    about: str
    began_at: float
    seconds: float = 0
    failed: bool = False


@dataclass
class Trace:
    """`rows` are labels, as `label_of` writes them."""

    rows: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    began_at: float = field(default_factory=time.time)
    why: str = ""


_CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)


def begin() -> None:
    _CURRENT.set(Trace())


def current() -> Trace | None:
    return _CURRENT.get()


def end() -> Trace | None:
    """Return what was collected since `begin`, and collect nothing more."""
    trace = _CURRENT.get()
    _CURRENT.set(None)
    return trace


def label_of(row: models.Model) -> str:
    """Return a name of the row, such as `orders.order:42`."""
    return f"{row._meta.label_lower}:{row.pk}"


def claimed(rows: Iterable[models.Model]) -> None:
    if trace := _CURRENT.get():
        trace.rows += map(label_of, rows)


@contextmanager
def call(what: str, about: models.Model | None = None) -> Iterator[None]:
    """Note how long the block waits for a counterpart. Threads that run in a copy of the context add to the same."""
    trace = _CURRENT.get()
    if trace is None:
        yield
        return
    noted = Call(what, label_of(about) if about else "", time.time())
    trace.calls.append(noted)
    began = time.perf_counter()
    try:
        yield
    except BaseException:
        noted.failed = True
        raise
    finally:
        noted.seconds = time.perf_counter() - began
