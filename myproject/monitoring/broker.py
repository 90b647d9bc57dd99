"""State of queues and workers, queried with short timeouts."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import Any, NamedTuple

from amqp.exceptions import AMQPError, NotFound
from django.conf import settings
from kombu import Connection
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from myproject.celery import app
from myproject.transport.broker_url import RABBITMQ, knock

# A live worker answers within milliseconds; a ping always takes this long, since the number of workers is unknown.
PING_SECONDS = 0.7
# What reading a message may raise, which anybody may have written who can reach the broker.
UNREADABLE = (ValueError, TypeError, LookupError, OverflowError, RecursionError)
# The year 3000.
MAX_TIME = 32_503_680_000
# How many of the messages held by workers are read: very many may be waiting for a retry.
SAMPLE = 1000


class Away(Exception):
    """The broker does not answer."""


class Waiting(NamedTuple):
    """A queue's length and the age of its oldest message, None if empty or unknown."""

    queue: str
    messages: int
    age: timedelta | None


class Worker(NamedTuple):
    """A worker that answers; `running` names its active tasks."""

    name: str
    queues: list[str]
    running: list[str]
    here_for: timedelta


@contextmanager
def connected() -> Iterator[Connection]:
    """Connect to the broker; raises `Away` when it does not answer, now or later in the block."""
    connection = app.connection_for_read(transport_options=settings.BROKER.probe_options, connect_timeout=1)
    try:
        yield connection
    except (KombuError, RedisError, AMQPError, OSError) as error:
        raise Away(str(error)) from error
    finally:
        connection.release()


def waiting(connection: Connection) -> list[Waiting]:
    """Return each queue's waiting messages: one round trip on Redis, one per queue and without ages on RabbitMQ."""
    names = [queue.name for queue in settings.CELERY_TASK_QUEUES]
    if settings.BROKER is RABBITMQ:
        return [Waiting(name, ready(connection, name), None) for name in names]
    channel: Any = connection.default_channel
    # The broker keeps a list for each priority that a message may have.
    keys = [channel._q_for_pri(name, step) for name in names for step in channel.priority_steps]
    with channel.client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.llen(key).lindex(key, -1)
        answers = pipe.execute()
    per_queue = 2 * len(channel.priority_steps)
    parts = [answers[start : start + per_queue] for start in range(0, len(answers), per_queue)]
    return [Waiting(name, sum(part[::2]), oldest(part[1::2])) for name, part in zip(names, parts, strict=True)]


def ready(connection: Connection, name: str) -> int:
    """Return the number of ready messages on RabbitMQ, where looking at the oldest would change their order."""
    try:
        # On a separate channel: RabbitMQ closes a channel that queries an undeclared queue.
        with connection.channel() as channel:
            return int(channel.queue_declare(name, passive=True).message_count)
    except NotFound:
        return 0


def running(connection: Connection) -> dict[str, int]:
    """Return how many messages of each queue workers hold, running or waiting for a retry.

    Beyond `SAMPLE` it is an estimate. Empty on RabbitMQ, which reports it to its management plugin only.
    """
    if settings.BROKER is RABBITMQ:
        return {}
    channel: Any = connection.default_channel
    messages = channel.client.hscan_iter(channel.unacked_key, count=SAMPLE // 4)
    found = Counter(queue_of(message) for _, message in islice(messages, SAMPLE))
    all_of_them = found.total() < SAMPLE
    share = 1 if all_of_them else channel.client.hlen(channel.unacked_key) / SAMPLE
    return {queue.name: round(found[queue.name] * share) for queue in settings.CELERY_TASK_QUEUES}


def queue_of(message: bytes) -> str:
    """Return the queue that a held message came from; empty when it does not say."""
    try:
        return str(json.loads(message)[2])
    except UNREADABLE:
        return ""


def latency() -> float:
    """Return the seconds that the broker takes to accept a message; raises `Away` if it does not."""
    start = time.monotonic()
    with connected() as connection:
        knock(connection.default_channel)
    return time.monotonic() - start


def oldest(messages: list[bytes | None]) -> timedelta | None:
    """Return the age of the oldest of these messages."""
    sent = [moment for message in messages if message and (moment := sent_at(message))]
    return timedelta(seconds=max(0, round(time.time() - min(sent)))) if sent else None


def sent_at(message: bytes) -> float | None:
    """Return when the message was sent, in seconds since 1970; None when it does not say."""
    try:
        told = float(json.loads(message)["headers"]["sent_at"])
    except UNREADABLE:
        return None
    # No number (NaN), or a time that no calendar has, is none.
    return told if 0 <= told < MAX_TIME else None


def workers(connection: Connection) -> list[Worker]:
    """Return the workers that answer; one of another release may not say more than its name."""
    answers: list[dict[str, Any]] = (
        app.control.broadcast("work", reply=True, timeout=PING_SECONDS, connection=connection) or []
    )
    found = [(name, said if isinstance(said, dict) else {}) for answer in answers for name, said in answer.items()]
    return sorted(
        Worker(name, said.get("queues", []), said.get("running", []), timedelta(seconds=round(said.get("seconds", 0))))
        for name, said in found
    )
