"""Rows as PostgreSQL writes them itself: five times as fast as rows that pass through Python, in constant memory."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from django.conf import settings
from django.db import connection

from reports.kinds import Column, Table

# So few that they are still in the processor's cache when they are joined: 10,000 take 1.7 times as long.
BLOCK = 100
# A text that begins with one of these is a formula to some spreadsheet (OWASP, *CSV Injection*): tab, line feed,
# carriage return, + - = @, and the full-width forms of the last four.
TRIGGERS = ", ".join(str(ord(letter)) for letter in "\t\n\r+-=@＋－＝＠")


class Copy:
    """The rows of a table, `BLOCK` of them at a time, as the database writes the expressions; `count` is how many."""

    def __init__(
        self, table: Table, expressions: Iterable[str], progress: Callable[[int], None], options: str = "FORMAT csv"
    ) -> None:
        self.table, self.progress, self.count = table, progress, 0
        self.sql = f"COPY (SELECT {', '.join(expressions)} FROM ({table.sql}) AS rows) TO STDOUT ({options})"

    def __iter__(self) -> Iterator[bytes]:
        # Of a cursor's methods, this is one whose errors Django does not make its own.
        with (
            connection.wrap_database_errors,
            connection.cursor() as cursor,
            cursor.copy(cursor.mogrify(self.sql, self.table.params)) as messages,
        ):
            # The protocol sends each row as a message of its own.
            rows = iter(messages)
            while block := list(islice(rows, BLOCK)):
                self.count += len(block)
                yield b"".join(block)
                self.progress(self.count)


def quoted(column: Column) -> str:
    return f'rows."{column.name}"'


def is_formula(column: Column) -> str:
    return f"ascii({quoted(column)}) IN ({TRIGGERS})"


def local(column: Column) -> str:
    """The time on the shop's own clocks, to the second."""
    return f"date_trunc('second', {quoted(column)} AT TIME ZONE '{settings.TIME_ZONE}')"
