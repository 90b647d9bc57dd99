"""The table: what was measured, as ratios to the first line of each scenario."""

import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from django.db import connection

from .backlog import redis

PACKAGES = ("django", "celery", "kombu", "redis", "psycopg", "stripe")


class Median(float):
    """The median of what several rounds have measured, which it keeps."""

    rounds: list[float]

    @classmethod
    def of(cls, rounds: list[float]) -> "Median":
        middle = cls(median(rounds))
        middle.rounds = rounds
        return middle


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


def circumstances() -> dict[str, Any]:
    """Return when and on what was measured."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        [postgres] = cursor.fetchone()
    servers = {"PostgreSQL": postgres, "Redis": redis().info("server")["redis_version"]}
    return {
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {memory()} GB",
        "load": round(os.getloadavg()[0], 1),
        "versions": {"Python": platform.python_version(), **servers, **{name: version(name) for name in PACKAGES}},
    }


def head(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"{found['at']} · {found['machine']}, load {found['load']}\n{versions}\n"
        "One worker with two processes for each side; medians, sides in turn.\n"
    )


def memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


def keep(path: Path, found: dict[str, Any], rows: list[Row]) -> None:
    """Write the figures of each round as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**found, "rows": list(_told(rows))}, indent=1, ensure_ascii=False) + "\n")
    write(f"\nThe raw figures are {path}.")


def _told(rows: list[Row]) -> Iterator[dict[str, Any]]:
    scenario = ""
    for row in rows:
        scenario = row.scenario or scenario
        known = {name: value for name, value in row._asdict().items() if value is not None}
        rounds = [round(value, 6) for value in getattr(row.figure, "rounds", [row.figure])]
        yield {**known, "scenario": scenario, "ratio": round(row.ratio, 3), "reached": row.reached, "rounds": rounds}


def show(rows: list[Row]) -> None:
    for row in rows:
        if row.scenario:
            write(f"\n{row.scenario}")
        write(str(row))


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
