"""All engines in turn, and their figures in one table."""

import sys
from importlib.metadata import version
from types import ModuleType

from benchmarks.report import Median, Row

from . import measures
from .worker import last_words

ORDERS_TO_KILL_AMONG = 1000
TITLES = ("orders/s", "messages/s", "click, ms", "worker, ms", "servers, ms", "left", "swept", "asked twice", "needs")
PACKAGES = {"django_tasks": ("django-tasks", "django-tasks-db"), "taskiq": ("taskiq", "taskiq-redis")}


class Table:
    """What was found of each engine, or why it could not be measured."""

    def __init__(self, engines: dict[str, ModuleType | str]) -> None:
        self.engines = {name: engine for name, engine in engines.items() if isinstance(engine, ModuleType)}
        self.failed = {name: reason for name, reason in engines.items() if isinstance(reason, str)}
        self.drained: dict[str, list[measures.Drained]] = {name: [] for name in self.engines}
        self.killed: dict[str, measures.Killed] = {}

    def fill(self, orders: int, rounds: int, kills: int) -> None:
        for number in range(rounds + bool(kills)):
            for name, engine in list(self.engines.items()):
                try:
                    if number < rounds:
                        self.drained[name].append(measures.drain(engine, orders))
                    else:
                        self.killed[name] = measures.kill(engine, ORDERS_TO_KILL_AMONG, kills)
                except measures.Failed as error:
                    self.failed[name] = f"{error}; its last words: {last_words()}"
                    del self.engines[name]
                sys.stderr.write(f"{name}: {self.killed.get(name) or self.drained[name][-1:]}\n")

    def figures(self, name: str) -> dict[str, Median]:
        columns = zip(*self.drained[name], strict=True)
        return {title: Median.of(list(column)) for title, column in zip(TITLES, columns, strict=False)}

    def __str__(self) -> str:
        lines = [f"| | {' | '.join(TITLES)} |", f"|---|{'--:|' * (len(TITLES) - 1)}---|"]
        for name, engine in self.engines.items():
            figures = {
                title: f"{value:,.0f}" if value >= 20 else f"{value:.2g}" for title, value in self.figures(name).items()
            }
            figures |= zip(TITLES[-4:-1], map(str, self.killed.get(name, ())), strict=False)
            cells = [figures.get(title, "") for title in TITLES[:-1]]
            lines.append(f"| {label(name)} | {' | '.join(cells)} | {engine.NEEDS} |")
        return "\n".join(lines + [f"{name}: {reason}" for name, reason in self.failed.items()])

    def rows(self) -> list[Row]:
        """Return all of it, beside the first engine's; of a thousand orders for the kills."""
        bases = self.figures(next(iter(self.engines))) if self.engines else {}
        rows = []
        for name in self.engines:
            for title, figure in self.figures(name).items():
                rows.append(Row(title, name, figure, bases[title], unit=title))
            for title, count in self.killed[name]._asdict().items() if name in self.killed else ():
                rows.append(Row(f"kills: {title}", name, count, ORDERS_TO_KILL_AMONG, unit="orders"))
        return rows


def label(name: str) -> str:
    return ", ".join(f"{package} {version(package)}" for package in PACKAGES.get(name, (name,)))
