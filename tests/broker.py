"""The messages that a test has queued, in a place of the broker where no worker takes them away.

A test module asks for the fixture with `pytest_plugins = ["tests.broker"]`. It has imported this module
by then, too late for pytest to rewrite it: PYTEST_DONT_REWRITE.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psutil
import pytest
from django.conf import settings
from django.utils import timezone
from kombu.message import Message

from durable.task import breaker
from myproject import embedded
from myproject.celery import app
from myproject.monitoring.broker import waiting
from tests.servers import IS_RABBITMQ, broker_aside

QUEUES = [queue.name for queue in settings.CELERY_TASK_QUEUES]


class Broker:
    def __init__(self) -> None:
        self.url = broker_aside(settings.VAR_DIR)

    def use(self, url: str) -> None:
        """Have the app publish there, over new connections."""
        app.conf.broker_url = app.conf.broker_read_url = app.conf.broker_write_url = url
        app._after_fork()
        breaker.close()

    def empty(self) -> None:
        with app.connection_for_write(self.url) as connection:
            if not IS_RABBITMQ:
                connection.default_channel.client.flushdb()
                return
            for name in QUEUES:
                queue = app.amqp.queues[name].bind(connection.default_channel)
                queue.declare()
                queue.purge()

    def lengths(self) -> dict[str, int]:
        with app.connection_for_read(self.url) as connection:
            return {queue.queue: queue.messages for queue in waiting(connection)}

    def take(self) -> Iterator[tuple[str, Message]]:
        """Take all messages; yield the queue of each and itself, in the order of the queues."""
        with app.connection_for_read(self.url) as connection:
            for name in QUEUES:
                queue = app.amqp.queues[name].bind(connection.default_channel)
                while message := queue.get(no_ack=True):
                    yield name, message

    def messages(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Take all messages; return queue, task and keyword arguments of each."""
        return [(queue, message.headers["task"], message.payload[1]) for queue, message in self.take()]

    def expiries(self) -> list[float]:
        """Take all messages; return in how many seconds each is dropped."""
        moments = [datetime.fromisoformat(message.headers["expires"]) for _, message in self.take()]
        return [(moment - timezone.now()).total_seconds() for moment in moments]


@pytest.fixture
def broker(servers: object) -> Iterator[Broker]:
    before = settings.CELERY_BROKER_URL
    broker = Broker()
    broker.use(broker.url)
    broker.empty()
    yield broker
    broker.use(before)


@pytest.fixture
def frozen_redis(servers: tuple[embedded.Postgres, embedded.Redis]) -> Iterator[None]:
    assert servers[1].process
    process = psutil.Process(servers[1].process.pid)
    process.suspend()
    yield
    process.resume()
