"""Single processes of a test's own, beside those of the `shop`: with other settings, and messages only they take."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.db import connection

from myproject import embedded
from myproject.celery import app
from tests.shop import SECONDS, answers, wait_for

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


@contextmanager
def sandbox(slow_seconds: float = 2) -> Iterator[dict[str, str]]:
    """Run a sandbox of the test's own; return the variables with which a worker finds it."""
    web, smtp = free_port(), free_port()
    command = f"python -m sandbox --port {web} --smtp-port {smtp} --data {settings.VAR_DIR / f'sandbox-{web}'}"
    with running(command, SANDBOX_SLOW_SECONDS=str(slow_seconds), SANDBOX_WEBHOOK_URL=""):
        url = f"http://127.0.0.1:{web}"
        wait_for(lambda: answers(f"{url}/healthz"), "the sandbox")
        places = {"STRIPE_API_BASE": "", "CRM_URL": "/crm", "WAREHOUSE_URL": "/warehouse"}
        found = {"SANDBOX_URL": url, "EMAIL_URL": f"smtp://127.0.0.1:{smtp}", "ALERT_URLS": f"json{url[4:]}/chat"}
        yield {name: url + path for name, path in places.items()} | found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_words() -> str:
    return "\n".join(LOG.read_text(errors="replace").splitlines()[-40:])
