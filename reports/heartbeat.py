"""The heartbeat of a report that is being written; it also tells the writer when to stop."""

import logging
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self

import psycopg
from django.db import DEFAULT_DB_ALIAS, DatabaseError, Error, connection, connections

from durable.leases import LeaseLost

from .models import Report

log = logging.getLogger(__name__)

# Seconds.
INTERVAL = 1.0


class Heartbeat:
    """While the block runs, records its progress every second, and stops it when its lease is lost.

    It uses a thread and a connection of its own: the writer's connection is busy with rows, or with a query that
    has not returned any yet; that query is cancelled, too. A block that ends within a second costs nothing.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.rows_done = 0
        self.rows_total: int | None = None
        self.is_lost = False
        self._over = Event()
        self._thread = Thread(target=self._beat, name=f"report {report.pk}", daemon=True)
        self._writers = connections[DEFAULT_DB_ALIAS]

    def progress(self, rows_done: int) -> None:
        """Record how many rows are written; raises `LeaseLost` when the writer should stop."""
        self.rows_done = rows_done
        if self.is_lost:
            raise LeaseLost

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        # A cancelled query fails like any other.
        if self.is_lost and isinstance(error, DatabaseError):
            raise LeaseLost from error

    def _beat(self) -> None:
        try:
            while not self._over.wait(INTERVAL):
                self._beat_once()
        finally:
            connection.close()

    def _beat_once(self) -> None:
        try:
            self.report.hold(rows_done=self.rows_done, rows_total=self.rows_total)
        except LeaseLost:
            self.is_lost = True
        except Error as error:
            log.warning("Heartbeat of report %s failed: %s", self.report.pk, error)
            connection.close()
        if self.is_lost:
            self._stop_query()

    def _stop_query(self) -> None:
        # Between two queries this has no effect, and `progress` stops the writer.
        if self._writers.connection is not None:
            with suppress(psycopg.Error):
                self._writers.connection.cancel_safe(timeout=INTERVAL)
