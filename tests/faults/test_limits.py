"""A worker's limits, and what becomes of a task when its process dies of one of them."""

import time
from collections.abc import Callable

import pytest
from celery.result import AsyncResult

from myproject.celery import app
from tests.faults import points
from tests.faults.arena import WORKERS, Arena
from tests.shop import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


def runs(name: str) -> int:
    return len(list(points.armed_file("runs", 0).parent.glob(f"{name}.*")))


@pytest.fixture
def sent(arena: Arena) -> Callable[..., AsyncResult]:
    points.armed_file("runs", 0).parent.mkdir(exist_ok=True)

    def send(task: str) -> AsyncResult:
        return app.send_task(f"tests.faults.worker.{task}", queue="default")

    return send


def test_memory_kill(sent: Callable[..., AsyncResult]) -> None:
    """A task that the kernel kills each time runs once and three more times, then it has failed: no endless loop."""
    result = sent("die")

    wait_for(lambda: result.state == "FAILURE", "the task to fail for good", 90)
    # Longer than the delay of a retry: there is no fifth.
    time.sleep(5)
    assert runs("die") == 4


def test_soft_limit(sent: Callable[..., AsyncResult]) -> None:
    """A task that exceeds its soft limit is told so, and is tried again."""
    result = sent("exceed_soft")

    assert wait_for(lambda: result.state == "SUCCESS", "the second run")
    assert runs("exceed_soft") == 2


def test_hard_limit(sent: Callable[..., AsyncResult]) -> None:
    """A task that exceeds its hard limit is killed and has failed: the sweep, not Celery, repeats its row."""
    result = sent("exceed_hard")

    wait_for(lambda: result.state == "FAILURE", "the task to be killed")
    time.sleep(3)
    assert runs("exceed_hard") == 1


def test_warm_shutdown(sent: Callable[..., AsyncResult], arena: Arena) -> None:
    """TERM during a task: the worker finishes it, once, and leaves."""
    result = sent("take_long")
    wait_for(lambda: runs("take_long"), "the task to start")

    for name in WORKERS:
        arena.restart(name)

    assert result.state == "SUCCESS"
    assert runs("take_long") == 1


def let_unacknowledged_expire() -> None:
    """Make an hour pass for unacknowledged messages."""
    with app.connection_for_write() as broker:
        redis = broker.default_channel.client
        for tag in redis.zrange("unacked_index", 0, -1):
            redis.zadd("unacked_index", {tag: 0})


def test_late_acknowledgement(sent: Callable[..., AsyncResult], arena: Arena) -> None:
    """kill -9 of the workers during a task: the message is still there, comes back, and the task is finished."""
    before = runs("take_long")
    result = sent("take_long")
    wait_for(lambda: runs("take_long") == before + 1, "the task to start")

    for name in WORKERS:
        arena.kill(name)
    arena.wait_until_ready()
    let_unacknowledged_expire()

    wait_for(lambda: result.state == "SUCCESS", "the message to come back", 30)
    assert runs("take_long") == before + 2
