"""Single processes of a test's own, beside those of the `shop`: with other settings, and messages only they take."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.db import connection

from myproject import embedded
from myproject.celery import app
from tests.shop import SECONDS, wait_for

BROKER_URL = f"{embedded.broker_url(settings.VAR_DIR)}?virtual_host=2"
LOG = settings.VAR_DIR / "running.log"


@contextmanager
def running(command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command on the test's database for as long as the block lasts."""
    ours = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DATABASE_URL": embedded.database_url(settings.VAR_DIR, connection.settings_dict["NAME"]),
        "CELERY_BROKER_URL": BROKER_URL,
        "DJANGO_ALLOW_ASYNC_UNSAFE": "",
    }
    with LOG.open("ab") as log:
        process = subprocess.Popen(
            command.split(),
            cwd=settings.BASE_DIR,
            env=os.environ | ours | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def worker(module: str = "myproject", options: str = "", **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker that is alone with its broker, and is there when the block begins."""
    # Two processes, so that a long task does not keep the next one waiting.
    command = f"celery -A {module} worker --loglevel INFO --concurrency 2 --hostname own-{os.getpid()}@%h {options}"
    with running(command, **environment) as process:
        wait_for(lambda: process.poll() is not None or app.control.ping(timeout=1, limit=1), "the worker")
        assert process.poll() is None, last_words()
        yield process


def last_words() -> str:
    return "\n".join(LOG.read_text(errors="replace").splitlines()[-40:])
