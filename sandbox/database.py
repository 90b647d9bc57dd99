"""One SQLite file that survives the death of the process at any line."""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def connect(folder: Path, schemas: list[str]) -> sqlite3.Connection:
    folder.mkdir(parents=True, exist_ok=True)
    # A version with other tables uses a file of its own and leaves this one alone.
    version = zlib.crc32("".join(schemas).encode())
    database = sqlite3.connect(folder / f"sandbox-{version:08x}.sqlite3", isolation_level=None)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA journal_mode = WAL")
    # An answer is sent only when its effect is on disk, so that it survives a power failure.
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA foreign_keys = ON")
    for schema in schemas:
        database.executescript(schema)
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Run the block in a transaction. It must not await: all requests share one connection."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
