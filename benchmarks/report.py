"""The table: what was measured, as ratios to the first line of each scenario."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import NamedTuple

from django.db import connection

from .backlog import redis

PACKAGES = ("django", "celery", "kombu", "redis", "psycopg", "stripe")


class Row(NamedTuple):
    """One line; `least` and `most` are what the ratio has to be, `above` by how much the figure may exceed its base."""

    scenario: str
    side: str
    figure: float
    base: float
    least: float | None = None
    most: float | None = None
    unit: str = "orders/s"
    above: float | None = None

    @property
    def ratio(self) -> float:
        return self.figure / self.base

    @property
    def reached(self) -> bool:
        return not (
            (self.least is not None and self.ratio < self.least)
            or (self.most is not None and self.ratio > self.most)
            or (self.above is not None and self.figure > self.base + self.above)
        )

    @property
    def target(self) -> str:
        if self.above:
            return f"at most {self.above:g} {self.unit} more: {self.figure - self.base:+.1f}"
        return f"at least {self.least:g}" if self.least else f"at most {self.most:g}" if self.most else ""

    def __str__(self) -> str:
        figure = {"ms": f"{self.figure * 1000:.1f} ms", "MB": f"{self.figure:.0f} MB"}.get(self.unit)
        verdict = "" if not self.target else " · reached" if self.reached else " · MISSED"
        words = f"{self.side:<46} {figure or f'{self.figure:,.0f}/s':>10} {self.ratio:>8.2f} ×"
        return f"  {words}   {self.target}{verdict}"


def head() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        [postgres] = cursor.fetchone()
    redis_version = redis().info("server")["redis_version"]
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · {os.cpu_count()} cores, {platform.machine()}, {memory()} GB, "
        f"load {os.getloadavg()[0]:.1f}\n"
        f"Python {platform.python_version()}, PostgreSQL {postgres}, Redis {redis_version}, {versions}\n"
        f"One worker with two processes for each side; medians, sides in turn.\n"
    )


def memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


def show(rows: list[Row]) -> None:
    for row in rows:
        if row.scenario:
            write(f"\n{row.scenario}")
        write(str(row))


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
