"""Health checks of the web: liveness and readiness."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from threading import Lock, Thread

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from myproject.monitoring import broker
from myproject.web.pages import View

log = logging.getLogger(__name__)

# Seconds. The readiness probe is answered within this time, whatever is frozen …
WITHIN = 1.0
# … and database and broker are queried only once in this time, however many probes there are.
FRESH = 2.0
# For a check's own connection, so that an abandoned check ends as well: 2 is psycopg's minimum.
BOUNDS = {"connect_timeout": 2, "tcp_user_timeout": 2000}
ASK = "BEGIN; SET LOCAL statement_timeout = 1000; SELECT 1; COMMIT"


class Unmigrated(Exception):
    """The database lacks migrations that this code has."""


def probes(get_response: View) -> View:
    """Middleware: answer the probes before all other middleware, and without a log line."""

    def answered(request: HttpRequest) -> HttpResponseBase:
        if request.path == "/healthz/live":
            return line("alive")
        if request.path == "/healthz/ready":
            missing = readiness.missing()
            return line(f"not ready: {', '.join(missing)}", status=503) if missing else line("ready")
        return get_response(request)

    return answered


def line(text: str, status: int = 200) -> HttpResponse:
    response = HttpResponse(f"{text}\n", "text/plain", status, headers={"Cache-Control": "no-store"})
    # Django logs each 503; `Readiness` says once what has changed.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def own_connection() -> BaseDatabaseWrapper:
    """Return a connection beside those of the pages, which may all wait for the database."""
    own = connections["default"].copy()
    options = {name: value for name, value in own.settings_dict["OPTIONS"].items() if name != "pool"}
    own.settings_dict["OPTIONS"] = options | BOUNDS
    return own


def database_latency() -> float:
    """Return how many seconds it takes to connect to the database and to be answered; raises `django.db.Error`."""
    start = time.monotonic()
    with closing(own_connection()) as own, own.cursor() as cursor:
        cursor.execute(ASK)
    return time.monotonic() - start


def check_migrations() -> None:
    with closing(own_connection()) as own:
        # Django reads the applied migrations through this alias; otherwise it opens a connection that is never closed.
        connections[own.alias] = own
        executor = MigrationExecutor(own)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise Unmigrated


class Check(Thread):
    """Queries one part in a thread that may be abandoned; `seconds` stays None until the part has answered."""

    def __init__(self, ask: Callable[[], float]) -> None:
        super().__init__(daemon=True)
        self.ask = ask
        self.seconds: float | None = None
        self.kind: type[Exception] | None = None

    def run(self) -> None:
        try:
            self.seconds = self.ask()
        except Exception as error:
            # Not the error itself: its traceback would keep the connection open.
            self.kind = type(error)


class Readiness:
    """Queries database and broker concurrently within `WITHIN` seconds, and caches the answers for `FRESH` seconds."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.asked_at = float("-inf")
        self.latencies: dict[str, float | None] = {}
        self.is_migrated = False
        self.told: list[str] = []

    def missing(self) -> list[str]:
        """Return the names of the parts that do not answer."""
        return [part for part, seconds in self.ask().items() if seconds is None]

    def ask(self) -> dict[str, float | None]:
        """Return how many seconds each part took to answer; None for one that did not."""
        with self.lock:
            if time.monotonic() - self.asked_at > FRESH:
                self.latencies = self.ask_now()
                self.asked_at = time.monotonic()
                self.log_changes([part for part, seconds in self.latencies.items() if seconds is None])
            return self.latencies

    def ask_now(self) -> dict[str, float | None]:
        checks = {"database": Check(self.ask_database), "broker": Check(broker.latency)}
        deadline = time.monotonic() + WITHIN
        for check in checks.values():
            check.start()
        for check in checks.values():
            check.join(max(0, deadline - time.monotonic()))
        if checks["database"].kind is Unmigrated:
            checks["migrations"] = checks.pop("database")
        return {part: check.seconds for part, check in checks.items()}

    def ask_database(self) -> float:
        seconds = database_latency()
        if not self.is_migrated:
            check_migrations()
            # Checked once only: applied migrations stay applied, and the check takes longer than all the rest.
            self.is_migrated = True
        return seconds

    def log_changes(self, missing: list[str]) -> None:
        if missing != self.told:
            log.warning("Not ready: %s", ", ".join(missing)) if missing else log.warning("Ready again")
        self.told = missing


readiness = Readiness()
