"""Single processes of a test's own, beside those of the `shop`: with other settings, and messages only they take.

A test module asks for the fixtures with `pytest_plugins = ["tests.broker", "tests.running"]`; it has imported this
module by then, too late for pytest to rewrite it: PYTEST_DONT_REWRITE.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

from myproject import embedded
from myproject.celery import app
from tests.broker import Broker
from tests.ports import free_port
from tests.shop import OURS, SECONDS, Shop, answers, wait_for

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
    command = f"celery -A {module} --quiet worker --concurrency 2 --hostname own-{os.getpid()}@%h {options}"
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


def last_words() -> str:
    return "\n".join(LOG.read_text(errors="replace").splitlines()[-40:])


@pytest.fixture
def queue(broker: Broker) -> Iterator[Broker]:
    """The real queues, and a database used by the test's own processes only."""
    # Started again by the next test that wants the shop.
    if Shop.current:
        Shop.current.stop(*OURS)
    broker.url = BROKER_URL
    broker.use(BROKER_URL)
    broker.empty()
    yield broker
    broker.empty()


@pytest.fixture
def web(settings: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that runs the web server as in production, with these variables."""
    with override_settings(STATIC_ROOT=tmp_path, DEBUG=False):
        settings.STORAGES = settings.STORAGES | {"staticfiles": {"BACKEND": "myproject.web.static_files.Storage"}}
        call_command("collectstatic", interactive=False, verbosity=0)

    @contextmanager
    def run(**environment: str) -> Iterator[None]:
        address = f"127.0.0.1:{free_port()}"
        settings.SITE_URL = f"http://{address}"
        production = {"DEBUG": "false", "HTTPS": "false", "SECRET_KEY": settings.SECRET_KEY, "WEB_CONCURRENCY": "1"}
        production |= {"ALLOWED_HOSTS": "127.0.0.1", "WEB_BIND": address, "STATIC_ROOT": str(tmp_path)}
        with running("gunicorn myproject.wsgi --config deploy/gunicorn.conf.py", **(production | environment)):
            wait_for(lambda: answers(f"{settings.SITE_URL}/accounts/login/"), "the web server")
            yield

    return run
