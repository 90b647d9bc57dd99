"""The warehouse's ledger. A level is the sum of a SKU's movements, so that every past version can be recomputed.

It counts goods received less goods lost. Sales are not in it: the shop counts those.
"""

import csv
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..database import transaction

# The opening stock.
with (Path(__file__).parent / "opening.csv").open(newline="") as rows:
    OPENING = {row["sku"]: int(row["units"]) for row in csv.DictReader(rows)}
OPENING_ROWS = ", ".join(f"({number}, '{sku}', {OPENING[sku]})" for number, sku in enumerate(OPENING, 1))

# Safe to interpolate: the values come from opening.csv.
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS warehouse_movements (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sku TEXT NOT NULL,
    units INTEGER NOT NULL,
    reason TEXT NOT NULL DEFAULT 'opening',
    moved REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS warehouse_movements_of_sku ON warehouse_movements (sku, id, units);
CREATE TABLE IF NOT EXISTS warehouse_book (one INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT OR IGNORE INTO warehouse_movements (id, sku, units) VALUES {OPENING_ROWS};
INSERT OR IGNORE INTO warehouse_book VALUES (1, lower(hex(randomblob(4))));
"""  # noqa: S608
LEVELS = """
SELECT sku, sum(units) AS units FROM warehouse_movements WHERE id <= :version AND sku > :after
GROUP BY sku ORDER BY sku LIMIT :limit
"""
MAX_UNITS = 1_000_000


class Movement(NamedTuple):
    """Units are negative for what was lost."""

    sku: str
    units: int
    reason: str


class Impossible(ValueError):
    """The message says which movement is invalid, and why."""


def version(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT coalesce(max(id), 0) FROM warehouse_movements").fetchone()[0])


def name(database: sqlite3.Connection) -> str:
    """Return the ledger's random name: a ledger that was reset starts its versions at one again."""
    return str(database.execute("SELECT name FROM warehouse_book").fetchone()[0])


def levels(database: sqlite3.Connection, at: int, after: str = "", limit: int = -1) -> list[sqlite3.Row]:
    """Return the levels at that version, of SKUs after the given one; a limit of -1 means no limit."""
    return database.execute(LEVELS, {"version": at, "after": after, "limit": limit}).fetchall()


def newest(database: sqlite3.Connection, limit: int) -> list[sqlite3.Row]:
    return database.execute("SELECT * FROM warehouse_movements ORDER BY id DESC LIMIT ?", (limit,)).fetchall()


def write(database: sqlite3.Connection, movements: Iterable[Movement]) -> None:
    """Record all of the movements or none. Raises `Impossible`."""
    now = time.time()
    with transaction(database):
        for movement in movements:
            check(database, movement)
            database.execute(
                "INSERT INTO warehouse_movements (sku, units, reason, moved) VALUES (?, ?, ?, ?)", (*movement, now)
            )


def write_old(database: sqlite3.Connection, movements: list[dict[str, Any]]) -> None:
    """Record movements of the past."""
    statement = "INSERT INTO warehouse_movements (sku, units, reason, moved) VALUES (:sku, :units, :reason, :moved)"
    database.executemany(statement, movements)


def check(database: sqlite3.Connection, movement: Movement) -> None:
    sku, units, _ = movement
    if not sku or len(sku) > 40:
        raise Impossible("Name the SKU, in at most 40 characters.")
    if not 0 < abs(units) <= MAX_UNITS:
        raise Impossible(f"The units must be a whole number from 1 to {MAX_UNITS}.")
    query = "SELECT coalesce(sum(units), 0) FROM warehouse_movements WHERE sku = ?"
    there = int(database.execute(query, (sku,)).fetchone()[0])
    if there + units < 0:
        raise Impossible(f"There are only {there} of {sku}.")
