"""How a worker keeps its database connection: what a task of one query takes, opens, and makes of a restart."""

from collections import defaultdict
from statistics import median

from django.db import connection

from myproject import embedded

from . import backlog, processes
from .connecting import FAILED, query
from .report import Row, write

WAYS = {
    "none": "no reuse, as Celery does by itself",
    "pool": "a pool in the worker",
    "reuse": "reuse alone",
    "ours": "reuse, with hook and health check: ours",
}
ROUNDS, TASKS, AFTERWARDS = 3, 200, 50


def connections(postgres: embedded.Postgres) -> list[Row]:
    """Compare the ways, each with a worker of its own; they take turns."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER SYSTEM SET log_connections = on")
        cursor.execute("SELECT pg_reload_conf()")
    figures: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
    for _ in range(ROUNDS):
        for way in WAYS:
            with processes.workers("connecting", WAY=way, DATABASE_POOL=str(way == "pool")):
                figures[way].append(measure(postgres))
    return rows({way: [median(values) for values in zip(*found, strict=True)] for way, found in figures.items()})


def measure(postgres: embedded.Postgres) -> tuple[float, int, int]:
    """Return the seconds for a task, the connections that all of them opened, and the failures after a restart."""
    drain(AFTERWARDS)
    opened = logged(postgres)
    seconds = drain(TASKS)
    opened = logged(postgres) - opened
    backlog.redis().delete(FAILED)
    connection.close()
    postgres.stop()
    postgres.start()
    drain(AFTERWARDS)
    return seconds / TASKS, opened, backlog.redis().llen(FAILED)


def drain(count: int) -> float:
    backlog.park(query, [{}] * count)
    start = backlog.release("default")
    return backlog.wait_until_empty("default") - start


def logged(postgres: embedded.Postgres) -> int:
    return postgres.log.read_text(errors="replace").count("connection authorized")


def rows(figures: dict[str, list[float]]) -> list[Row]:
    base = figures["none"][0]
    for way, (_, opened, failed) in figures.items():
        write(f"{WAYS[way]}: {opened:.0f} connections for {TASKS} tasks, {failed:.0f} of {AFTERWARDS} fail afterwards")
    title = "A task of one query, by how its worker keeps the connection"
    return [
        Row(title if way == "none" else "", WAYS[way], seconds, base, unit="ms", most=0.9 if way == "ours" else None)
        for way, (seconds, _, _) in figures.items()
    ]
