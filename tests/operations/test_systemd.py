"""The units of systemd: read by its own tools, and run."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.containers import ROOT, Machine, demo
from tests.shop import wait_for
from tests.units import FAMILIES, FOLDER, SERVICES, command, directives, environment, installed

# Of 10; what is left is the network, which the shop needs, and a folder of the host.
MAX_EXPOSURE = 15

# The fixtures start servers and migrate a database.
pytestmark = [pytest.mark.operations, pytest.mark.timeout(300)]
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("units"))


def analyze(units: Path, *words: str) -> str:
    """Ask systemd-analyze about these units, and fail as it fails."""
    env = os.environ | {"SYSTEMD_UNIT_PATH": f"{units}:"}
    done = subprocess.run(["systemd-analyze", *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return "\n".join(line for line in (done.stdout + done.stderr).splitlines() if "shop" in line)


@needs_systemd
def test_units_are_what_systemd_understands(units: Path) -> None:
    complaints = analyze(units, "verify", "--man=no", "shop.target", "shop-web.socket", *SERVICES)

    assert complaints == ""


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES)
def test_services_are_hardened(units: Path, unit: str) -> None:
    analyze(units, "security", "--offline=true", "--no-pager", f"--threshold={MAX_EXPOSURE}", unit)


def test_target_wants_every_service_and_each_leaves_with_it() -> None:
    text = (FOLDER / "shop.target").read_text()
    wanted = {name for line in re.findall(r"Wants=(.*)", text) for name in line.split()}

    assert wanted == {*SERVICES, "shop-web.socket"}
    assert all(directives(unit)["PartOf"] == ["shop.target"] for unit in SERVICES)


@pytest.mark.parametrize("unit", [unit for unit in SERVICES if unit != "shop-migrate.service"])
def test_services_come_back_and_finish_what_they_do(unit: str) -> None:
    said = directives(unit)

    assert said["Restart"] == ["always"]
    assert said["KillMode"] == ["mixed"]
    assert said["TimeoutStopSec"]


@pytest.mark.parametrize("unit", [unit for unit in SERVICES if unit != "shop-migrate.service"])
def test_services_come_after_the_migrations_and_neither_stop_nor_stay_away_with_them(unit: str) -> None:
    said = directives(unit)

    assert said["Wants"][0] == "shop-migrate.service"
    assert any("shop-migrate.service" in line.split() for line in said["After"])
    assert "shop-migrate.service" not in " ".join(said.get("Requires", []))


def test_migrations_are_tried_again_when_the_database_was_away() -> None:
    said = directives("shop-migrate.service")

    assert (said["Type"], said["Restart"]) == (["oneshot"], ["on-failure"])
    # More seldom than systemd gives up: five starts in ten seconds.
    assert int(said["RestartSec"][0]) > 2


def test_workers_and_beat_write_their_heartbeat_where_no_other_does() -> None:
    folders = {}
    for unit in ("shop-beat.service", *(f"shop-worker@{name}.service" for name in FAMILIES)):
        said = directives(unit)
        folders[unit] = re.findall(r"HEARTBEAT_DIR=%t/(\S+)", " ".join(said["Environment"]))
        assert folders[unit] == said["RuntimeDirectory"]

    assert len({folder for (folder,) in folders.values()}) == len(folders)


def test_metrics_have_a_port_for_each_process_of_one_machine() -> None:
    said = [" ".join(directives(unit)["Environment"]) for unit in SERVICES]

    ports = [port for text in said for port in re.findall(r"METRICS_PORT=(\d+)", text)]

    assert len(ports) == len(set(ports)) == len(FAMILIES) + 1


# --- As processes --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    here = Machine(tmp_path_factory.mktemp("systemd"), demo())
    with here.servers():
        unit = "shop-migrate.service"
        for line in directives(unit, installed(here.home))["ExecStart"]:
            subprocess.run(line.split(), cwd=ROOT, env=environment(unit, here), check=True, capture_output=True)
        yield here


# Of the socket it makes the third file, for the process of this number only.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.execvpe(sys.argv[2], sys.argv[2:], os.environ | {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
"""


@contextmanager
def running(
    unit: str, machine: Machine, *prefix: str, files: Sequence[int] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    with (machine.home / f"{unit}.log").open("ab") as log:
        process = subprocess.Popen(
            [*prefix, *command(unit, machine.home / "systemd")],
            cwd=ROOT,
            env=environment(unit, machine),
            stdout=log,
            stderr=log,
            pass_fds=files,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


class WebSocket:
    """A socket that outlives the service behind it, such as systemd holds."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))

    def activate(self, machine: Machine) -> AbstractContextManager["subprocess.Popen[bytes]"]:
        number = self.socket.fileno()
        return running("shop-web.service", machine, sys.executable, "-c", ACTIVATE, str(number), files=[number])

    def ask(self) -> socket.socket:
        """Send a request, which waits in the line of the socket until somebody answers."""
        visitor = socket.create_connection(self.socket.getsockname(), timeout=60)
        visitor.sendall(b"GET /accounts/login/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return visitor


def test_web_takes_the_socket_that_systemd_holds_and_a_restart_loses_no_visitor(machine: Machine) -> None:
    web = WebSocket()
    early = web.ask()

    with web.activate(machine):
        first = early.recv(12)
    between = web.ask()
    with web.activate(machine):
        second = between.recv(12)

    assert (first, second) == (b"HTTP/1.1 200", b"HTTP/1.1 200")


def test_worker_and_beat_of_the_units_work(machine: Machine) -> None:
    machine.hurry()

    with running("shop-worker@default.service", machine) as worker, running("shop-beat.service", machine) as beat:
        wait_for(lambda: ("Heartbeat", "default@here") in machine.periodic_runs(), "a periodic task")

    assert (worker.returncode, beat.returncode) == (0, 0)
