"""`make run`, as it runs on a laptop: servers, database and processes of its own, in an empty folder."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import pytest
from django.conf import settings

from myproject import processes
from myproject.management.commands import run as command
from tests.environment import PORTS
from tests.ports import HOST, free_offset
from tests.shop import answers, wait_for

# The first start makes a database and migrates it.
SECONDS = 240
FROM_OUTSIDE = ("DATABASE_URL", "CELERY_BROKER_URL", "MEDIA_ROOT", "METRICS_TOKEN")
DOTENV = settings.BASE_DIR / ".env"

pytestmark = [
    pytest.mark.operations,
    pytest.mark.skipif(
        DOTENV.exists() and any(line.startswith(FROM_OUTSIDE) for line in DOTENV.read_text().splitlines()),
        reason=".env names servers, which `make run` would use",
    ),
    pytest.mark.timeout(600),
]


class Run:
    """One `manage.py run` of a folder."""

    def __init__(
        self,
        folder: Path,
        name: str = "run",
        offset: int | None = None,
        command: list[str] | None = None,
        code: Path = settings.BASE_DIR,
    ) -> None:
        self.command = command or [sys.executable, "manage.py", "run"]
        self.code = code
        self.log = folder / f"{name}.log"
        self.offset = free_offset(*PORTS) if offset is None else offset
        self.url = f"http://localhost:{8000 + self.offset}/accounts/login/"
        self.environment = {name: value for name, value in os.environ.items() if name not in FROM_OUTSIDE}
        self.environment |= {"VAR_DIR": str(folder / "var"), "PORT_OFFSET": str(self.offset)}

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = psutil.Popen(
                self.command,
                cwd=self.code,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        everybody = self.everybody() if self.process.is_running() else []
        try:
            self.press_ctrl_c()
        finally:
            for process in everybody:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def press_ctrl_c(self) -> int:
        """End it, and return what it exits with."""
        if self.process.is_running():
            # A terminal interrupts the whole group.
            os.killpg(self.process.pid, signal.SIGINT)
        return int(self.process.wait(SECONDS))

    def celery(self, *words: str) -> str:
        """Return what this command of Celery says."""
        command = [sys.executable, "-m", "celery", "-A", "myproject", *words]
        done = subprocess.run(command, cwd=self.code, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def everybody(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def first(self, word: str) -> psutil.Process | None:
        """Return the process that has this word in its command, the first of its family."""
        found = [process for process in self.everybody() if has_word(process, word)]
        return next((process for process in found if process.parent() not in found), None)


def has_word(process: psutil.Process, word: str) -> bool:
    try:
        return any(part.split(" ")[0].endswith(word) for part in process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def shop_of_a_laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with Run(tmp_path_factory.mktemp("laptop")) as run:
        wait_for(lambda: answers(run.url) or run.process.poll() is not None, "the shop", SECONDS)
        assert run.process.poll() is None, run.said()[-2000:]
        yield run


def test_process_that_is_killed_is_started_again(shop_of_a_laptop: Run) -> None:
    killed = wait_for(lambda: shop_of_a_laptop.first("worker"), "the worker")
    assert killed is not None

    killed.kill()

    wait_for(lambda: "worker died; starting it again" in shop_of_a_laptop.said(), "a word about it")
    wait_for(lambda: shop_of_a_laptop.first("worker") not in (None, killed), "another worker")
    assert answers(shop_of_a_laptop.url)


@pytest.mark.parametrize("name", ["/postgres", "/valkey-server"])
def test_server_that_is_killed_is_started_again(name: str, shop_of_a_laptop: Run) -> None:
    killed = wait_for(lambda: shop_of_a_laptop.first(name), "the server")
    assert killed is not None

    killed.kill()

    wait_for(lambda: shop_of_a_laptop.first(name) not in (None, killed), "another server")
    wait_for(lambda: answers(f"http://localhost:{8000 + shop_of_a_laptop.offset}/healthz/ready"), "the shop")


def test_second_start_says_that_this_shop_runs_already(shop_of_a_laptop: Run) -> None:
    folder = shop_of_a_laptop.log.parent

    with Run(folder, "second", shop_of_a_laptop.offset) as second:
        code = second.process.wait(SECONDS)

    assert code != 0
    assert "of this checkout already runs" in second.said()
    assert answers(shop_of_a_laptop.url)


def test_ctrl_c_leaves_no_process_behind(shop_of_a_laptop: Run) -> None:
    everybody = shop_of_a_laptop.everybody()

    code = shop_of_a_laptop.press_ctrl_c()

    assert len(everybody) > len(PORTS)
    assert [process for process in everybody if process.is_running()] == []
    assert code == 0, shop_of_a_laptop.said()[-2000:]


def test_taken_port_is_named_with_what_to_do(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with socket.create_server((HOST, 5555 + run.offset)), run:
        code = run.process.wait(SECONDS)

    assert code != 0
    assert f"Port {5555 + run.offset} (flower) is taken." in run.said()
    assert "Traceback" not in run.said()


def test_app_that_is_begun_is_watched_and_so_are_its_mails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "BASE_DIR", tmp_path)
    watch = processes.Watch(command.code)
    files = [tmp_path / "begun" / name for name in ("apps.py", "tasks.py", "templates/begun/email/begun.txt")]

    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    assert set(watch.look()) == set(files)
