"""Deleting what is old, a chunk at a time."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.db.models import Model, QuerySet

log = logging.getLogger(__name__)

# Rows deleted in one statement: short locks, and a limit that strikes loses no more than this.
CHUNK = 5_000
# A clean-up that is cut goes on the next night.
CLEAR_LIMITS = {"soft_time_limit": 240, "time_limit": 300}


def delete_in_chunks(rows: QuerySet[Model]) -> int:
    """Delete the rows a chunk at a time, log and return how many there were.

    Their order should be that of an index which finds them; nothing may refer to them, since nothing else is deleted.
    """
    statement, params = deletion(rows)
    total, count = 0, CHUNK
    while count == CHUNK:
        with connection.cursor() as cursor:
            cursor.execute(statement, params)
            count = cursor.rowcount
        total += count
    log.info("Deleted %s old rows of %s", total, rows.model._meta.label)
    return total


def deletion(rows: QuerySet[Model]) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that deletes one chunk of the rows, and its parameters."""
    chosen, params = rows.values("pk")[:CHUNK].query.sql_with_params()
    table, key = rows.model._meta.db_table, rows.model._meta.pk.column
    # What somebody is changing at this moment, such as an alert that happens again, may not be old any more.
    chosen = f'{chosen} FOR UPDATE OF "{table}" SKIP LOCKED'
    # ANY(ARRAY(…)) is looked up by the key; for IN (…) PostgreSQL may read the whole table for each chunk.
    return f'DELETE FROM "{table}" WHERE "{key}" = ANY(ARRAY({chosen}))', params  # noqa: S608


@contextmanager
def going_on_next_night(what: str) -> Iterator[None]:
    """End quietly at the soft time limit: a retry would only delay the other clean-ups."""
    try:
        yield
    except SoftTimeLimitExceeded:
        log.warning("Time is up for %s; the next run goes on", what)
        # It may have struck within a statement, and then this connection is of no more use.
        connection.close()
