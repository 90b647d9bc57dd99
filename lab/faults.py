"""What is done to both sides."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

import psutil
from django.db import connection

from lab.arena import Arena


@contextmanager
def frozen(lab: Arena, seconds: float) -> Iterator[None]:
    """Freeze Redis for so long, or as long as the block lasts if that is longer."""
    assert lab.broker.process
    server = psutil.Process(lab.broker.process.pid)
    server.suspend()
    timer = Timer(seconds, server.resume)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@contextmanager
def away(lab: Arena) -> Iterator[None]:
    """Stop Redis for as long as the block lasts; what it holds is kept on disk."""
    lab.broker.stop()
    try:
        yield
    finally:
        lab.broker.start()


def wipe(lab: Arena) -> int:
    """Empty Redis; return how many messages waited there."""
    waiting = sum(map(lab.length, ("celery", "orders", "mail")))
    with lab.redis("celery") as redis:
        redis.flushall()
    return waiting


def double(lab: Arena, queue: str) -> None:
    """Deliver the next message of the queue twice: at least once may be twice."""
    with lab.redis(queue) as redis:
        [message] = redis.lrange(queue, -1, -1)
        redis.rpush(queue, message)


def put(lab: Arena, queue: str, message: str) -> None:
    """Put something into a queue that nobody has published."""
    with lab.redis(queue) as redis:
        redis.rpush(queue, message)


def drop_connections() -> int:
    """End the connection of every other process to the database; return how many there were."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])
