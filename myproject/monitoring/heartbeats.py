"""Heartbeat files of workers and beat; `deploy/alive.py` reads them."""

import logging
import os
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

from celery import bootsteps
from django.conf import settings
from django.db import Error

from myproject.celery import app
from myproject.monitoring import broker
from myproject.monitoring.health import database_latency

log = logging.getLogger(__name__)

EVERY = settings.HEARTBEAT_SECONDS
# How long the main loop may take for one round: a slow publish, a slow query.
LATE_AFTER = 4 * EVERY
# For a thread that has just begun to ask.
STOP_SECONDS = 5


class Heartbeat:
    """Writes a file while the main loop of this process runs, or waits for a server that is down.

    A thread writes it, since the main loop stands still while it connects anew or waits for an answer. When the loop
    is late the thread asks broker and database itself: only if both answer there is nothing to wait for, and the
    process hangs. A new process would not bring back a broker, and would cost the tasks that the old one has at work.
    """

    def __init__(self, name: str) -> None:
        self.path = Path(settings.HEARTBEAT_DIR or os.devnull) / name
        self.over = Event()
        self.thread = Thread(target=self.run, name=f"heartbeat of {name}", daemon=True)
        self.tick()

    def start(self) -> None:
        """Begin; raises `OSError` where the file cannot be written. It does nothing without a HEARTBEAT_DIR."""
        if settings.HEARTBEAT_DIR:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.write()
            self.thread.start()

    def tick(self) -> None:
        """Record a round of the main loop."""
        self.ticked_at = time.monotonic()

    def stop(self) -> None:
        """Remove the file on a regular shutdown."""
        self.over.set()
        if self.thread.is_alive():
            self.thread.join(STOP_SECONDS)

    def run(self) -> None:
        while not self.over.wait(EVERY):
            if time.monotonic() - self.ticked_at < LATE_AFTER or somebody_is_away():
                self.write_if_possible()
        self.path.unlink(missing_ok=True)

    def write_if_possible(self) -> None:
        try:
            self.write()
        except OSError as error:
            log.error("Cannot show that this process lives: %s", error)

    def write(self) -> None:
        # Not the file's own time: a clock that is set must not make a process look dead. All containers of a machine
        # share this one, which counts from its start.
        new = self.path.with_suffix(".new")
        new.write_text(f"{time.monotonic()}\n")
        new.replace(self.path)


def somebody_is_away() -> bool:
    for ask in (broker.latency, database_latency):
        try:
            ask()
        except (broker.Away, Error):
            return True
    return False


class WorkerHeartbeat(bootsteps.StartStopStep):
    """Ticks on the timer of a worker's main loop, which is independent of running tasks."""

    requires = {"celery.worker.components:Timer"}

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.heartbeat = Heartbeat("worker")

    def start(self, worker: Any) -> None:
        self.heartbeat.start()
        worker.timer.call_repeatedly(EVERY, self.heartbeat.tick)

    def stop(self, worker: Any) -> None:
        self.heartbeat.stop()

    def terminate(self, worker: Any) -> None:
        self.heartbeat.stop()


app.steps["worker"].add(WorkerHeartbeat)
