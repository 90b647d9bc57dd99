"""A broker that answers and takes nothing: the worker lives, says so once, and goes on; readiness knows."""

from collections.abc import Iterator
from typing import Any

import pytest
from django_celery_results.models import TaskResult
from redis import Redis
from redis.exceptions import OutOfMemoryError

from myproject.celery import app
from myproject.monitoring import broker as monitored
from myproject.tasks import add
from tests import running
from tests.broker import Broker
from tests.shop import wait_for

pytest_plugins = ["tests.broker", "tests.running"]
pytestmark = [pytest.mark.operations, pytest.mark.usefixtures("transactional_db")]


@pytest.fixture
def redis(queue: Broker) -> Iterator[Redis]:
    with app.connection_for_write() as link:
        client = link.default_channel.client
        yield client
        client.config_set("maxmemory", 0)
        client.replicaof("NO", "ONE")


def has_run(task_id: str) -> bool:
    return TaskResult.objects.filter(task_id=task_id, status="SUCCESS").exists()


def is_ready() -> bool:
    try:
        monitored.latency()
    except monitored.Away:
        return False
    return True


def said_since(start: int) -> str:
    return running.LOG.read_bytes()[start:].decode(errors="replace")


def test_worker_empties_a_full_redis(redis: Redis) -> None:
    with running.worker() as process:
        start = running.LOG.stat().st_size
        waiting = [add.apply_async((1, number), expires=600).id for number in range(20)]
        redis.config_set("maxmemory", "1mb")
        with pytest.raises(OutOfMemoryError):
            redis.lpush("default", "{}")

        wait_for(lambda: all(map(has_run, waiting)), "what waited")
        assert not is_ready()
        redis.config_set("maxmemory", 0)
        after = add.delay(2, 3).id
        wait_for(lambda: has_run(after), "a task", 20)

        assert is_ready()
        assert process.poll() is None
    assert said_since(start).count("Redis is full") <= 1


def test_worker_begins_with_a_full_redis(redis: Redis) -> None:
    before = add.delay(1, 2).id
    redis.config_set("maxmemory", "1mb")

    with running.running("celery -A myproject worker --concurrency 1") as process:
        wait_for(lambda: has_run(before), "what waited")
        assert process.poll() is None


def test_worker_waits_while_its_redis_is_anothers_replica(redis: Redis) -> None:
    with running.worker() as process:
        start = running.LOG.stat().st_size
        redis.replicaof("127.0.0.1", 1)
        wait_for(lambda: "this worker waits" in said_since(start), "a line of it")
        assert not is_ready()

        redis.replicaof("NO", "ONE")
        after = add.delay(1, 2).id
        wait_for(lambda: has_run(after), "a task", 20)

        assert process.poll() is None
    assert said_since(start).count("this worker waits") == 1


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("rate_limit", {"task_name": "myproject.tasks.add", "rate_limit": "1/m"}),
        ("time_limit", {"task_name": "myproject.tasks.add", "hard": 600, "soft": 500}),
        ("pool_shrink", {"n": 2}),
        ("pool_shrink", {"n": -1}),
    ],
)
def test_what_is_typed_in_good_faith_stops_no_queue(queue: Broker, command: str, arguments: dict[str, Any]) -> None:
    with running.worker():
        [answer] = app.control.broadcast(command, arguments=arguments, reply=True, timeout=5)
        tasks = [add.delay(1, number).id for number in range(5)]
        wait_for(lambda: all(map(has_run, tasks)), "tasks as ever", 20)

    assert "error" in next(iter(answer.values()))
