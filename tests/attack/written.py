"""What was written to the database, and queued for workers, between two moments."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import connection, models

from tests.broker import Broker


def is_number(field: Any) -> bool:
    return isinstance(field, models.IntegerField | models.DecimalField) and not field.primary_key


def tables(since: int) -> dict[str, str]:
    """Return what to ask each table for: rows that were written since, all rows, and the sum of each of its numbers."""
    found = {}
    for model in apps.get_models(include_auto_created=True):
        meta = model._meta
        if meta.managed and not meta.proxy and meta.db_table not in PASSING:
            sums = [f"coalesce(sum({f.column}), 0)" for f in meta.concrete_fields if is_number(f)]
            written = f"count(*) FILTER (WHERE xmin::text::bigint >= {since})"
            asked = f"concat_ws(' ', {written}, count(*), {', '.join(sums) or 0})"
            found[meta.db_table] = f"SELECT {asked} FROM {meta.db_table}"
    return found


# What each request may write anew.
PASSING = {"django_session", "myproject_run"}


def now() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT txid_current()")
        return int(cursor.fetchone()[0])


def state(since: int) -> dict[str, list[float]]:
    asked = tables(since)
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"SELECT '{name}', ({query})" for name, query in asked.items()))
        return {name: [float(number) for number in said.split()] for name, said in cursor.fetchall()}


def difference(before: dict[str, list[float]], after: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return for each table that was changed the rows written, and by what its numbers differ."""
    changes = {name: [b - a for a, b in zip(before[name], after[name], strict=True)] for name in before}
    return {name: numbers for name, numbers in changes.items() if any(numbers)}


def sent(broker: Broker) -> dict[str, int]:
    """Take the messages away; return of each task how many there were that say different things, or name no row."""
    queued = broker.messages()
    of_rows = {(task, str(kwargs)) for _, task, kwargs in queued if any(name.endswith("_id") for name in kwargs)}
    alone = [task for _, task, kwargs in queued if not any(name.endswith("_id") for name in kwargs)]
    return dict(Counter([*(task for task, _ in of_rows), *alone]))


@contextmanager
def changed(broker: Broker) -> Iterator[dict[str, Any]]:
    """Yield what will say how the tables differ, and what was queued."""
    since, found = now(), dict[str, Any]()
    before = state(since)
    yield found
    found |= difference(before, state(since)) | {"messages": sent(broker)}
