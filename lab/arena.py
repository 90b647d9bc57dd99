"""Where an experiment happens: a broker, a database, a sandbox and workers of its own, which may be broken at will.

Nothing of the shop is touched. However the process that holds an arena ends, a guard ends what it has started.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import psutil
import requests
from celery.states import READY_STATES
from django.conf import settings
from django.db import connection
from django_celery_results.models import TaskResult
from redis import Redis

from durable.task import survive
from lab import marks
from lab.naive.app import CONF, DATABASE
from lab.naive.app import app as naive_app
from myproject import embedded, processes
from myproject.celery import app
from orders.tasks import check_pending_orders

T = TypeVar("T")
SECONDS = 60
# The modules of the two sides, as `celery -A` takes them, and the queues that a worker of each reads.
NAIVE, OURS = "lab.naive.worker", "lab.ours"
# What an experiment leaves in the tables goes with these.
EMPTIED = (
    "accounts_user",
    "orders_product",
    "orders_inventorysync",
    "django_celery_results_taskresult",
    "django_celery_results_chordcounter",
    "django_celery_beat_periodictask",
    "myproject_deadletter",
    "myproject_alert",
)


class Vain(Exception):
    """What was waited for has not come."""


@dataclass
class Worker:
    """A Celery worker: its first process, and how it is called."""

    name: str
    process: subprocess.Popen[bytes]

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def kill(self) -> None:
        """Kill it with its children at once, as a machine that loses its power does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Stop it as a deploy does, and wait for its tasks."""
        if self.is_alive:
            self.thaw()
        self.process.terminate()
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def freeze(self) -> None:
        for process in self.family():
            process.suspend()

    def thaw(self) -> None:
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.resume()


@dataclass
class Step:
    """Something that has happened, so many seconds after the side began."""

    at: float
    text: str


@dataclass
class Arena:
    """`tell` is called whenever there is something new to see; `broker` is a server that may be frozen and wiped."""

    home: Path
    broker: embedded.Server
    tell: Callable[[], None] = lambda: None
    steps: list[Step] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    # Further processes that end with this one: those of the servers.
    also: list[int] = field(default_factory=list)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.guard = processes.Guard(self.home / "lab-processes.json")
            self.guard.start()
            stack.callback(self.guard.stop)
            self.started: list[subprocess.Popen[bytes]] = []
            self.shared: dict[str, Worker] = {}
            stack.callback(self.end_all)
            self.log = (self.home / "lab.log").open("ab")
            stack.callback(self.log.close)
            self.start_sandbox()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stack.close()

    # --- Telling ---

    def begin(self) -> None:
        """Begin a side: nothing is left of the one before."""
        self.clear()
        self.steps, self.numbers, self.since, self.begun_at = [], {}, time.monotonic(), time.time()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.since

    def say(self, text: str, **numbers: float) -> None:
        """Tell the reader what has just happened."""
        self.steps.append(Step(round(self.elapsed, 1), text))
        self.count(**numbers)

    def count(self, **numbers: float) -> dict[str, float]:
        """Note these numbers; return all of the side."""
        self.numbers |= numbers
        self.tell()
        return self.numbers

    # --- Waiting ---

    def until(self, condition: Callable[[], T], what: str, seconds: float = SECONDS, sweep: Any = None) -> T:
        """Wait until the condition holds and return its value; raises `Vain`.

        With `sweep`, a task or True for that of the orders, the shop's sweep is queued each second, as beat does each
        minute.
        """
        end, next_sweep = time.monotonic() + seconds, 0.0
        while not (value := condition()):
            if time.monotonic() > end:
                raise Vain(f"Waited {seconds:g} s in vain for {what}.")
            if sweep and time.monotonic() > next_sweep:
                survive((check_pending_orders if sweep is True else sweep).delay, "the sweep")
                next_sweep = time.monotonic() + 1
            time.sleep(0.05)
        return value

    def watch(self, seconds: float, measure: Callable[[], Mapping[str, float]], sweep: Any = None) -> None:
        """Look on for so long, and note what there is to be seen."""
        end = time.monotonic() + seconds
        with suppress(Vain):
            self.until(lambda: self.count(**measure()) and time.monotonic() > end, "the end", seconds + 1, sweep)

    # --- Processes ---

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=settings.BASE_DIR,
            env=os.environ | {"DATABASE_URL": self.database_url(), "DJANGO_ALLOW_ASYNC_UNSAFE": ""} | environment,
            stdout=self.log,
            stderr=self.log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started.append(process)
        self.guard.update([*self.also, *(each.pid for each in self.started if each.poll() is None)])
        return process

    @staticmethod
    def database_url() -> str:
        """Return the database of this process: in tests it is theirs."""
        return embedded.database_url(Path(settings.VAR_DIR), str(connection.settings_dict["NAME"]))

    def end_all(self) -> None:
        """Stop every process, whatever state it is in."""
        for process in reversed(self.started):
            if process.poll() is None:
                processes.kill_group(process.pid)
            process.wait()

    def start_sandbox(self) -> None:
        web, smtp = urlsplit(settings.SANDBOX_URL).port, settings.EMAIL_PORT
        data = ["--data", str(self.home / "lab-sandbox"), "--webhook-url", ""]
        self.start("-m", "sandbox", "--port", str(web), "--smtp-port", str(smtp), *data, SANDBOX_SLOW_SECONDS="2")
        self.until(lambda: _answers(f"{settings.SANDBOX_URL}/healthz"), "the sandbox")

    def start_worker(
        self,
        side: str,
        concurrency: int = 2,
        conf: Mapping[str, Any] | None = None,
        ready: Callable[[], bool] | None = None,
        **env: str,
    ) -> Worker:
        """Start a worker and wait until it answers, or is `ready`; `conf` overrides settings of the naive app."""
        name = f"{side.split('.')[1]}-{len(self.started)}@lab"
        options = ["--hostname", name, "--concurrency", str(concurrency), "--loglevel", "INFO"]
        process = self.start(
            "-m", "celery", "-A", side, "--quiet", "worker", *options, **{CONF: json.dumps(conf or {})}, **env
        )
        worker = Worker(name, process)
        answers = ready or partial(self.answers, name)
        self.until(lambda: not worker.is_alive or answers(), f"the worker {name}")
        if not worker.is_alive:
            raise Vain(f"The worker {name} does not start: see {self.log.name}.")
        self.say("A worker is ready.")
        return worker

    def answers(self, name: str) -> bool:
        """Tell whether the worker of that name does."""
        control = (naive_app if name.startswith("naive") else app).control
        return bool(control.ping([name], timeout=1, limit=1))

    @contextmanager
    def worker(self, side: str, **options: Any) -> Iterator[Worker]:
        """Run a worker of this experiment's own, without the common one, which would take a part of the messages."""
        self.rest(side)
        worker = self.start_worker(side, **options)
        try:
            yield worker
        finally:
            worker.stop()

    def common(self, side: str) -> Worker:
        """Return the worker with the side's usual settings, which experiments share while it lives."""
        worker = self.shared.get(side)
        if worker is None or not worker.is_alive:
            self.shared[side] = worker = self.start_worker(side)
        return worker

    def rest(self, side: str) -> None:
        """Stop the common worker of a side, so that messages wait."""
        if side in self.shared:
            self.shared.pop(side).stop()

    def patiently(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until the condition holds, or the time is over."""
        with suppress(Vain):
            self.until(condition, "that", seconds)

    # --- Looking ---

    def clear(self) -> None:
        """Empty the tables, the queues and the controls of the sandbox."""
        if connection.settings_dict["HOST"] != str(self.broker.sockets):
            raise RuntimeError("This is not the lab's own database: nothing is emptied.")
        self.sandbox("/controls", {"reset": "all"})
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(EMPTIED)} CASCADE")
        # With the lock of a worker that was killed while it held it.
        kept = ("unacked", "unacked_index", "unacked_mutex")
        for queue in ("celery", "high_priority", *(queue.name for queue in settings.CELERY_TASK_QUEUES)):
            with self.redis(queue) as redis:
                redis.delete(queue, *kept)
        marks.clear()

    def redis(self, queue: str) -> Redis:
        """Connect to where this queue is."""
        is_ours = queue in {queue.name for queue in settings.CELERY_TASK_QUEUES}
        address = str(self.broker.sockets / "redis.sock")
        return Redis(unix_socket_path=address, socket_timeout=30, db=0 if is_ours else DATABASE)

    def length(self, queue: str) -> int:
        with self.redis(queue) as redis:
            return int(redis.llen(queue))

    def sandbox(self, path: str, data: dict[str, Any] | None = None) -> Any:
        """Ask the sandbox's JSON pages; with data, post them."""
        body = None if data is None else json.dumps(data).encode()
        request = Request(settings.SANDBOX_URL + path, body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def fault(self, name: str, **how: Any) -> None:
        """Switch on a fault of the sandbox's."""
        self.sandbox("/controls", {"fault": name, **how})

    def charges(self, *references: str) -> int:
        """Count the charges of these orders in the provider's own ledger."""
        found = [c for ref in references for c in self.sandbox(f"/ledger.json?order={ref}")["charges"]]
        return sum(charge["status"] == "succeeded" for charge in found)

    def mails(self, to: str) -> list[dict[str, Any]]:
        """Return the mails that this person got since the side began."""
        found: list[dict[str, Any]] = self.sandbox(f"/mail.json?to={quote(to)}")
        return [mail for mail in found if mail["received"] >= self.begun_at]

    @staticmethod
    def results(*states: str) -> int:
        """Count the tasks of the naive side that have ended, or those in these states."""
        return TaskResult.objects.filter(status__in=states or READY_STATES, task_name__startswith="lab.naive").count()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
