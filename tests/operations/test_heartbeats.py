"""Real workers and beats: alive while others are away, not when they are stopped, hang or are dead."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from myproject import embedded
from myproject.celery import app
from myproject.tasks import wait
from tests.broker import Broker
from tests.shop import SECONDS, Shop, wait_for, worker_answers

pytest_plugins = ["tests.broker"]
pytestmark = [pytest.mark.operations, pytest.mark.django_db(transaction=True)]

CHECKER = [sys.executable, "-S", "deploy/alive.py"]
# Seconds: ten times as quick as in production.
EVERY, MAX_AGE = 0.5, 4
# Later than a process would count as dead that nothing excuses.
LONG = 4 * EVERY + MAX_AGE + 3
WORKER = "celery -A tests.hanging_worker --quiet worker --concurrency 1 --hostname heartbeat@%h"
BEAT = "celery -A myproject --quiet beat"


class Process:
    """A worker or beat that shows in a folder of its own that it lives."""

    def __init__(self, command: str, environment: dict[str, str], folder: Path) -> None:
        self.name = "worker" if " worker " in command else "beat"
        self.environment = environment | {"HEARTBEAT_DIR": str(folder), "HEARTBEAT_SECONDS": str(EVERY)}
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command.split(),
                cwd=settings.BASE_DIR,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def check(self) -> subprocess.CompletedProcess[str]:
        command = [*CHECKER, self.name, "--max-age", str(MAX_AGE)]
        return subprocess.run(
            command, cwd=settings.BASE_DIR, env=self.environment, capture_output=True, text=True, check=False
        )

    def lives(self) -> bool:
        return self.check().returncode == 0

    def complaints(self, seconds: float = LONG) -> str:
        """Watch for so many seconds; return the first complaint of the checker, empty when it lives all the time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if complaint := self.check().stderr:
                return complaint
            time.sleep(0.2)
        return ""

    def said(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[embedded.Redis]:
    """A broker of this test's own, which it may stop."""
    with embedded.Redis(tmp_path / "broker") as server:
        yield server


@pytest.fixture
def start(redis: embedded.Redis, tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    started: list[Process] = []

    def start(command: str) -> Process:
        address = {"CELERY_BROKER_URL": embedded.broker_url(tmp_path / "broker")}
        folder = tmp_path / f"heartbeat-{len(started)}"
        folder.mkdir()
        process = Process(command, Shop().environment() | address, folder)
        started.append(process)
        wait_for(process.lives, f"a sign of life of: {command}")
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.send(signal.SIGKILL)
        process.process.wait(SECONDS)


@contextmanager
def frozen(server: embedded.Server) -> Iterator[None]:
    """Stop all processes of a server, as on a machine that is paused: it neither answers nor refuses."""
    assert server.process
    parent = psutil.Process(server.process.pid)
    for process in [parent, *parent.children(recursive=True)]:
        process.suspend()
    try:
        yield
    finally:
        for process in [*parent.children(recursive=True), parent]:
            process.resume()


@contextmanager
def stopped(server: embedded.Server) -> Iterator[None]:
    server.stop()
    yield
    server.start()
    # The test's own connection has died with the database.
    connection.close()


AWAY = {"refuses": stopped, "frozen": frozen}


@pytest.fixture
def queue(broker: Broker, tmp_path: Path) -> Broker:
    """The test's own messages go to the broker that it may stop."""
    broker.use(embedded.broker_url(tmp_path / "broker"))
    return broker


# --- The worker ---


def test_worker_lives_while_it_works_and_takes_its_file_along(start: Callable[[str], Process], queue: Broker) -> None:
    worker = start(WORKER)
    wait_for(worker_answers, "the worker to answer")
    wait.delay(seconds=LONG)

    while_busy = worker.complaints()
    worker.process.terminate()

    assert while_busy == ""
    assert worker.said("task_started")
    assert worker.process.wait(SECONDS) == 0
    assert "no sign of life" in worker.check().stderr


def test_worker_that_is_stopped_is_dead_until_it_goes_on(start: Callable[[str], Process]) -> None:
    worker = start(WORKER)

    worker.send(signal.SIGSTOP)

    wait_for(lambda: not worker.lives(), "the checker to notice")
    worker.send(signal.SIGCONT)
    wait_for(worker.lives, "the worker to go on")


def test_worker_that_was_killed_is_dead(start: Callable[[str], Process]) -> None:
    worker = start(WORKER)

    worker.send(signal.SIGKILL)

    wait_for(lambda: "the last sign of life is" in worker.check().stderr, "the checker to notice")


def test_worker_whose_main_loop_hangs_is_dead_although_its_other_threads_live(
    start: Callable[[str], Process], queue: Broker
) -> None:
    worker = start(WORKER)
    wait_for(worker_answers, "the worker to answer")

    app.control.broadcast("hang")

    wait_for(lambda: not worker.lives(), "the checker to notice")
    assert worker.process.poll() is None


@pytest.mark.parametrize("how", AWAY)
def test_worker_lives_while_its_broker_is_away_and_works_when_it_is_back(
    how: str, start: Callable[[str], Process], queue: Broker, redis: embedded.Redis
) -> None:
    worker = start(WORKER)
    wait_for(worker_answers, "the worker to answer")

    with AWAY[how](redis):
        complaints = worker.complaints()

    assert complaints == ""
    wait_for(worker_answers, "the worker to answer again")
    # Redis was back before the worker tried again: that pause may be longer than MAX_AGE, which production's never is.
    wait_for(worker.lives, "a sign of life")
    assert worker.complaints() == ""


def test_worker_lives_that_has_never_found_its_broker(start: Callable[[str], Process], redis: embedded.Redis) -> None:
    with stopped(redis):
        worker = start(WORKER)

        assert worker.complaints() == ""
        assert worker.said("Cannot connect")


@pytest.mark.parametrize("how", AWAY)
def test_worker_lives_while_the_database_is_away(
    how: str, start: Callable[[str], Process], servers: tuple[embedded.Postgres, embedded.Redis]
) -> None:
    worker = start(WORKER)

    with AWAY[how](servers[0]):
        assert worker.complaints() == ""


# --- Beat ---


@pytest.fixture
def schedules() -> None:
    call_command("sync_schedules")
    often = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.filter(interval__isnull=False).update(interval=often)


@pytest.fixture
def beat(start: Callable[[str], Process], schedules: None) -> Process:
    process = start(BEAT)
    wait_for(lambda: process.said("task_enqueued"), "beat to send")
    return process


def test_beat_takes_its_file_along(beat: Process) -> None:
    beat.process.terminate()

    assert beat.process.wait(SECONDS) == 0
    assert "no sign of life" in beat.check().stderr


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_beat_that_is_stopped_or_killed_is_dead(number: signal.Signals, beat: Process) -> None:
    beat.send(number)

    wait_for(lambda: "the last sign of life is" in beat.check().stderr, "the checker to notice")


def test_beat_that_hangs_is_dead_until_it_goes_on(beat: Process) -> None:
    with transaction.atomic():
        # It waits to write down when each ran, for a lock of a database that answers.
        list(PeriodicTask.objects.select_for_update())

        wait_for(lambda: not beat.lives(), "the checker to notice")

    wait_for(beat.lives, "beat to go on")


@pytest.mark.parametrize("how", AWAY)
def test_beat_lives_while_the_broker_is_away(how: str, beat: Process, redis: embedded.Redis) -> None:
    with AWAY[how](redis):
        assert beat.complaints() == ""

    sent = beat.log.read_text().count("task_enqueued")
    wait_for(lambda: beat.log.read_text().count("task_enqueued") > sent + 5, "beat to send again")
    assert beat.lives()


@pytest.mark.parametrize("how", AWAY)
def test_beat_lives_while_the_database_is_away(
    how: str, beat: Process, servers: tuple[embedded.Postgres, embedded.Redis]
) -> None:
    with AWAY[how](servers[0]):
        assert beat.complaints() == ""

    sent = beat.log.read_text().count("task_enqueued")
    wait_for(lambda: beat.log.read_text().count("task_enqueued") > sent + 5, "beat to send again")


# --- The checker ---


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no sign of life"),
        ("", "no sign of life"),
        ("yesterday", "no sign of life"),
        ("-1000", "s old, more than 60 s"),
        ("1e12", "s old, more than 60 s"),
    ],
)
def test_checker_says_in_one_line_what_is_wrong(content: str | None, complaint: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "beat").write_text(content)

    checked = subprocess.run(
        [*CHECKER, "beat"],
        cwd=settings.BASE_DIR,
        env={"HEARTBEAT_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 1
    assert complaint in checked.stderr
    assert checked.stderr.count("\n") == 1


def test_checker_says_that_it_was_not_told_where_to_look() -> None:
    checked = subprocess.run(
        [*CHECKER, "worker"], cwd=settings.BASE_DIR, env={}, capture_output=True, text=True, check=False
    )

    assert (checked.returncode, "HEARTBEAT_DIR is not set" in checked.stderr) == (1, True)
