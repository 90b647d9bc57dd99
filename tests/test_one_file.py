"""The project of docs/how-to/one-file.md runs as its page says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from django.conf import settings

from tests.ports import free_port
from tests.servers import broker_url
from tests.shop import wait_for

FOLDER = settings.BASE_DIR / "docs" / "how-to"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Run web and worker of the one file, and return where its page is."""
    port = free_port()
    # No key of the tests' own: its queue stands beside theirs.
    variables = {"ONE_FILE_DATABASE": str(tmp_path / "db"), "CELERY_BROKER_URL": broker_url(settings.VAR_DIR)}
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"} | variables
    subprocess.run([sys.executable, "one_file.py", "migrate"], cwd=FOLDER, env=environment, check=True)
    commands = [
        ["one_file.py", "runserver", "--noreload", str(port)],
        ["-m", "celery", "-A", "one_file", "worker", "-l", "INFO", "--concurrency=1"],
    ]
    running = [subprocess.Popen([sys.executable, *command], cwd=FOLDER, env=environment) for command in commands]
    yield f"http://127.0.0.1:{port}/"
    for process in running:
        process.terminate()
    for process in running:
        process.wait(30)


def test_page_queues_a_task_and_the_worker_of_the_same_file_runs_it(address: str) -> None:
    def asked(url: str) -> requests.Response | None:
        try:
            return requests.get(url, timeout=5)
        except requests.ConnectionError:
            return None

    first = wait_for(lambda: asked(address), "the page")
    assert first is not None

    assert wait_for(lambda: (asked(first.url) or first).text == "SUCCESS: 5", "the result")
