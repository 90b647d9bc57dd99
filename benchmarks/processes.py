"""Workers and the sandbox, as real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.request import urlopen

from myproject.celery import app

from .environment import HOME, SANDBOX_PORT, SMTP_PORT

QUEUES = {"shop": "orders,default", "tutorial": "tutorial", "connecting": "default"}
SECONDS = 60


@contextmanager
def workers(*sides: str, **environment: str) -> Iterator[None]:
    """One worker with two processes for each of the sides."""
    with ExitStack() as stack:
        for side in sides:
            options = ["--loglevel", "INFO", "--concurrency", "2", "--hostname", f"{side}@bench"]
            command = ["-m", "celery", "-A", f"benchmarks.{side}", "worker", *options, "--queues", QUEUES[side]]
            stack.enter_context(running(*command, **environment))
        wait_for(lambda: len(app.control.ping(timeout=1)) == len(sides), "the workers")
        yield


@contextmanager
def sandbox() -> Iterator[None]:
    options = ["--port", str(SANDBOX_PORT), "--smtp-port", str(SMTP_PORT), "--data", str(HOME / "sandbox")]
    with running("-m", "sandbox", *options):
        wait_for(answers, "the sandbox")
        yield


@contextmanager
def running(*command: str, **environment: str) -> Iterator[None]:
    with (HOME / "processes.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | {"LOG_LEVEL": "INFO"} | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(SECONDS)


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = SECONDS, every: float = 0.1) -> float:
    """Ask every so many seconds until the condition holds; return the moment. Ends the run when time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            tail = "\n".join((HOME / "processes.log").read_text(errors="replace").splitlines()[-20:])
            raise SystemExit(f"Waited {seconds} s in vain for {what}:\n{tail}")
        time.sleep(every)
    return time.perf_counter()


def answers() -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{SANDBOX_PORT}/healthz", timeout=5):
            return True
    except OSError:
        return False
