"""The shop's real processes, for tests that need them whole."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from urllib.request import Request, urlopen

from amqp.exceptions import AMQPError
from django.conf import settings
from django.db import connection
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from myproject import embedded
from myproject.celery import app
from myproject.management.commands.run import procfile
from myproject.monitoring import broker
from myproject.transport.broker_url import RABBITMQ

T = TypeVar("T")
# Longer than a healthy shop needs on a machine that has ten other things to do.
SECONDS = 120
OURS = ("web", "live", "worker", "beat", "flower")
METRICS_PORTS = {"worker": 9101 + settings.PORT_OFFSET, "beat": 9102 + settings.PORT_OFFSET}


def wait_for(condition: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """Ask until the condition holds and return its value; fail loudly when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if value := condition():
            return value
        answered = time.monotonic()
        if answered > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        # As long as the answer took: questions must not keep a core from what is waited for.
        time.sleep(max(0.05, answered - asked))


class Shop:
    """Runs the Procfile against the database of the tests; `kill` and `start` break and mend it."""

    # The one of this session, if any test has wanted it.
    current: ClassVar["Shop | None"] = None

    def __init__(self) -> None:
        self.commands = procfile()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.log = settings.VAR_DIR / "processes.log"
        # What a test sets besides, for the processes that start from then on.
        self.variables: dict[str, str] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # What has started must not stay when the rest does not come.
            stack.push(self)
            for name in self.commands:
                if name != "beat":
                    self.start(name)
            self.wait_until_ready()
            stack.pop_all()
        Shop.current = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop(*self.running)

    def start(self, name: str) -> None:
        with self.log.open("ab") as log:
            self.running[name] = subprocess.Popen(
                self.commands[name].split(),
                cwd=settings.BASE_DIR,
                env=self.environment() | {"METRICS_PORT": str(METRICS_PORTS.get(name, 0))},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DATABASE_URL": embedded.database_url(settings.VAR_DIR, connection.settings_dict["NAME"]),
            "SANDBOX_PORT": str(settings.SANDBOX_PORT),
            "SMTP_PORT": str(settings.SMTP_PORT),
            "SANDBOX_DATA": str(settings.VAR_DIR / "sandbox"),
            "SANDBOX_SHOP_URL": settings.SITE_URL,
            "SANDBOX_WEBHOOK_URL": f"http://127.0.0.1:{settings.PORT}/webhooks/payments/",
            "DJANGO_ALLOW_ASYNC_UNSAFE": "",
            **self.variables,
        }

    @contextmanager
    def started_anew(self, log: Path, *names: str, **variables: str) -> Iterator[None]:
        """Run these of the processes with these variables and into that log; afterwards as before."""
        before = self.log
        try:
            self.log, self.variables = log, variables
            # What it sends meanwhile would stand before what the test sends.
            self.pause("beat")
            self.stop(*names)
            self.heal()
            yield
        finally:
            self.log, self.variables = before, {}
            self.pause("beat")
            self.stop(*names)
            self.heal()

    def stop(self, *names: str) -> None:
        running = [self.running[name] for name in names if name in self.running]
        for process in running:
            process.terminate()
            # A paused process takes no signal until it goes on.
            process.send_signal(signal.SIGCONT)
        for process in running:
            process.wait(SECONDS)

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-60:])

    def kill(self, name: str) -> None:
        """SIGKILL the process and all its children at once, as a machine that loses power does."""
        os.killpg(self.running[name].pid, signal.SIGKILL)
        self.running[name].wait()

    def pause(self, name: str) -> None:
        os.killpg(self.running[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        os.killpg(self.running[name].pid, signal.SIGCONT)

    def heal(self) -> None:
        """Let beat go on, and start what a test has killed."""
        for name in self.commands:
            if name not in self.running or self.running[name].poll() is not None:
                self.start(name)
        self.wait_until_ready()
        # It reads the schedules anew, since they have changed.
        self.resume("beat")

    def wait_until_ready(self) -> None:
        wait_for(lambda: answers(f"{settings.SITE_URL}/accounts/login/"), "the web server")
        wait_for(lambda: answers(f"http://{settings.LIVE_BIND}/healthz/ready"), "push")
        wait_for(lambda: answers(f"{settings.SANDBOX_URL}/healthz"), "the sandbox")
        wait_for(lambda: answers(f"{settings.FLOWER_URL}/healthcheck"), "Flower")
        wait_for(worker_answers, "the worker")

    def settle(self) -> None:
        """Pause beat, wait until the worker is idle, and forget what waits for a later attempt or was left behind."""
        # It takes seconds to start; one that a test has ended stays so until the next.
        if self.running["beat"].poll() is None:
            self.pause("beat")
        # Twice: what an ending task has sent may have been on its way from the queue at the first look.
        wait_for(lambda: all(not self.waits() and self.is_idle() for _ in range(2)), "an idle worker")
        self.forget_retries()
        if settings.BROKER is not RABBITMQ:
            with app.connection_for_read() as link:
                link.default_channel.client.delete("unacked", "unacked_index")

    def waits(self) -> bool:
        with broker.connected() as link:
            return any(queue.messages for queue in broker.waiting(link))

    def is_idle(self) -> bool:
        """Tell whether the worker has nothing: neither taken from its queue nor at work."""
        worker = app.control.inspect(timeout=1, limit=1)
        # In the order that a message takes, so that none slips by between the two.
        answers = (ask() for ask in (worker.reserved, worker.active))
        return all(found and not any(found.values()) for found in answers)

    def forget_retries(self) -> None:
        """Have the worker drop what it holds for a later time, or else that runs within another test."""
        found = app.control.inspect(timeout=1, limit=1).scheduled() or {}
        if ids := [later["request"]["id"] for tasks in found.values() for later in tasks]:
            app.control.revoke(ids, reply=True, limit=1)

    def sandbox(self, path: str, data: dict[str, Any] | None = None) -> Any:
        """Ask the sandbox's JSON pages; with data, post them."""
        body = None if data is None else json.dumps(data).encode()
        request = Request(settings.SANDBOX_URL + path, body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=10) as answer:
            return json.load(answer)


def is_somebody_waiting() -> bool:
    """Say whether a statement waits for a lock of another one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone() != (0,)


def worker_answers() -> bool:
    # This process's own connection may be one that Redis has lost since the last test.
    try:
        return bool(app.control.ping(timeout=1, limit=1))
    except (OSError, RedisError, BrokerError, AMQPError):
        return False


def strike(claimed_by: str, number: int) -> int:
    """Send the signal to the process that works on the task, named by its id or by its claim of a row; return it."""
    task_id = claimed_by.partition("/")[0]
    pid = wait_for(lambda: busy_with(task_id), "the task")
    assert pid is not None
    os.kill(pid, number)
    return pid


def busy_with(task_id: str) -> int | None:
    """Return the process that works on the task, if one does."""
    # There is one worker: to wait for answers of more costs a second, in which the task may end.
    active = app.control.inspect(timeout=1, limit=1).active() or {}
    return next((row["worker_pid"] for rows in active.values() for row in rows if row["id"] == task_id), None)


def answers(url: str, seconds: float = 5) -> bool:
    try:
        with urlopen(url, timeout=seconds):
            return True
    except OSError:
        return False
