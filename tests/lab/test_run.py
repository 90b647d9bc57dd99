"""The button, and what is left when the run, the shop or the machine's owner ends it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django.test import Client

from lab import runs
from tests.shop import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.django_db, pytest.mark.timeout(300)]

SECONDS = 180


def state() -> str:
    return runs.latest().state


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def start(client: Client, slug: str) -> list[psutil.Process]:
    """Press the button; return the processes of the run when its first side is going."""
    assert client.post(f"/lab/{slug}/run/").status_code == 302
    wait_for(lambda: state().startswith("running") or state() in runs.ENDED, "the run to begin", SECONDS)
    wait_for(lambda: len(children_of(runs.latest().pid)) > 8, "its workers", SECONDS)
    return [*children_of(runs.latest().pid), psutil.Process(runs.latest().pid)]


def test_button_runs_both_sides_and_leaves_nothing(client: Client) -> None:
    client.post("/lab/mistyped-queue/run/")
    pid = runs.latest().pid
    wait_for(lambda: state() in runs.ENDED, "the end", SECONDS)

    page = client.get("/lab/mistyped-queue/").content.decode()

    assert (state(), runs.latest().is_as_told) == ("done", True)
    assert "Fails as expected" in page
    assert ">Holds<" in page
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", "the process to go")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_run_that_is_killed_leaves_no_process(number: int, client: Client) -> None:
    processes = start(client, "prefetch")

    os.kill(runs.latest().pid, number)

    _, alive = psutil.wait_procs([each for each in processes if each.pid != runs.latest().pid], 40)
    assert alive == []
    wait_for(lambda: runs.latest().was_cut_off, "the run itself to end")
    assert "stopped before its end" in client.get("/lab/prefetch/").content.decode()


def test_run_ends_with_the_process_that_it_watches(tmp_path: Path) -> None:
    shop = subprocess.Popen(["sleep", "600"])
    command = [sys.executable, "-m", "lab", "prefetch", "--progress", str(tmp_path / "p"), "--watch", str(shop.pid)]
    environment = os.environ | {"VAR_DIR": str(tmp_path)}
    runner = psutil.Popen(command, cwd=settings.BASE_DIR, env=environment, start_new_session=True)
    wait_for(lambda: len(runner.children(recursive=True)) > 8, "its workers", SECONDS)
    processes = runner.children(recursive=True)

    shop.kill()
    shop.wait()

    assert psutil.wait_procs([runner, *processes], 60)[1] == []
