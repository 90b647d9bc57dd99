"""Thousands of odd messages against real workers: none dies, none stands still, and nothing runs that is not ours."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from amqp.basic_message import Message
from amqp.exceptions import AMQPError
from django.conf import settings
from django.db.models import Sum
from django_celery_results.models import TaskResult
from kombu import Connection

from myproject import embedded
from myproject.alerting.models import Alert, DeadLetter
from myproject.celery import app
from myproject.queues import QUEUES
from myproject.transport import certificates
from myproject.transport.envelope import Kind
from myproject.transport.rabbitmq import DEAD
from tests import running
from tests.broker import Broker
from tests.mutations import ODD, mutations, nested
from tests.servers import RabbitMQ
from tests.shop import SECONDS, wait_for

pytest_plugins = ["tests.broker", "tests.running"]
pytestmark = [pytest.mark.attack, pytest.mark.usefixtures("transactional_db")]

COUNT = 2_500
ADD = "import django; django.setup(); from myproject.tasks import add; add.delay(x={}, y={})"
# What a worker says when it connects anew, or would have died without Celery's own care.
LOST = ("Connection to broker lost", "Unrecoverable error", "Error in timer", "raised exception")
# Of the task after the odd ones, under the load of all tests.
AT_MOST = 100


@pytest.fixture
def signed(tmp_path: Path) -> dict[str, str]:
    certificates.make(tmp_path, days=1)
    paths = ("key.pem", "certificate.pem", "trusted")
    return {
        f"CELERY_{name.upper()}": str(tmp_path / path) for name, path in zip(certificates.SETTINGS, paths, strict=True)
    }


def send(x: int, y: int, **variables: str) -> None:
    """Queue a task as the web would, in a process with these variables."""
    env = {"DJANGO_SETTINGS_MODULE": "myproject.settings", "CELERY_BROKER_URL": running.BROKER_URL, **variables}
    subprocess.run([sys.executable, "-c", ADD.format(x, y)], env=os.environ | env, cwd=settings.BASE_DIR, check=True)


def taken(queue: str = "default") -> dict[str, Any]:
    with app.connection_for_write() as link:
        content: dict[str, Any] = json.loads(link.default_channel.client.rpop(queue))
    return content


def lay(*items: bytes, queue: str = "default") -> None:
    with app.connection_for_write() as link:
        link.default_channel.client.lpush(queue, *items)


def left() -> list[str]:
    with app.connection_for_read() as link:
        redis = link.default_channel.client
        return [name for name in (*QUEUES, "unacked", "unacked_index") if redis.exists(name)]


def refused() -> int:
    return DeadLetter.objects.aggregate(sum=Sum("count"))["sum"] or 0


def has_result(result: str) -> bool:
    return TaskResult.objects.filter(status="SUCCESS", result=result).exists()


@contextmanager
def living_worker(**variables: str) -> Iterator[None]:
    """Run a worker; fails unless it is the same one at the end, and has never lost its connection."""
    start = running.LOG.stat().st_size if running.LOG.exists() else 0

    def said() -> str:
        return running.LOG.read_bytes()[start:].decode(errors="replace")

    command = f"celery -A myproject worker --concurrency 2 --hostname odd-{os.getpid()}@%h"
    with running.running(command, **variables) as process:
        # Where messages are signed it does not listen to this process.
        wait_for(lambda: process.poll() is not None or " ready." in said(), "the worker", AT_MOST)
        yield
        assert process.poll() is None
    assert [words for words in LOST if words in said()] == []


def test_worker_outlives_odd_messages(queue: Broker) -> None:
    send(1, 2)
    odd = list(mutations([taken()], COUNT, seed=1))

    with living_worker():
        lay(*odd)
        send(20, 22)
        wait_for(lambda: has_result("42"), "the task after them", AT_MOST)
        wait_for(lambda: left() == [], "an empty broker")

    assert refused() > COUNT / 2
    assert Alert.objects.filter(subject="A message was refused").count() <= 4


def test_worker_runs_nothing_but_what_is_signed(queue: Broker, signed: dict[str, str]) -> None:
    send(1, 2, **signed)
    ours = taken()
    plain = ours | {"content-type": "application/json"}
    plain["body"] = base64.b64encode(json.dumps([[], {"x": 1, "y": 3}, {}]).encode()).decode()
    odd = list(mutations([ours, ours, plain], COUNT, seed=2))

    with living_worker(**signed):
        lay(*odd)
        send(20, 22, **signed)
        wait_for(lambda: has_result("42"), "the task after them", AT_MOST)
        wait_for(lambda: left() == [], "an empty broker")

    # Those in which nothing is changed that is signed are ours, sent again.
    results = set(TaskResult.objects.exclude(result="42").values_list("task_id", "result"))
    assert results <= {(ours["headers"]["id"], "3")}
    assert refused() > COUNT / 2


def test_worker_outlives_odd_broadcasts(queue: Broker) -> None:
    command: dict[str, Any] = {"method": "work", "arguments": {}, "destination": None, "pattern": None, "matcher": None}
    event = {"type": "worker-elect", "hostname": "x", "clock": 1, "pid": 1, "topic": "task", "action": {"task": "x"}}
    bodies = [json.dumps(body).encode() for body in (command, event, [event])]
    envelopes = [broadcast(body) for body in bodies]
    topics = ("/2.celery.pidbox", "/2.celeryev/worker.elect", "/2.celeryev/worker.heartbeat")

    with living_worker(), app.connection_for_write() as link:
        redis = link.default_channel.client
        for number, item in enumerate(mutations(envelopes, COUNT, seed=3)):
            redis.publish(topics[number % 3], item)
        answer = wait_for(lambda: app.control.ping(timeout=2), "an answer to a command")
        send(20, 22)
        wait_for(lambda: has_result("42"), "a task")

    assert len(answer) == 1
    assert DeadLetter.objects.filter(kind="control").count() > COUNT / 10


def broadcast(body: bytes) -> dict[str, Any]:
    properties = {"delivery_tag": "x", "body_encoding": "base64", "priority": 0}
    properties["delivery_info"] = {"exchange": "celery.pidbox", "routing_key": ""}
    return {
        "body": base64.b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"clock": 1},
        "properties": properties,
    }


UNHASHABLE: list[Any] = [[], {}, ["default"], {"default": 1}, None, 7, True]


def test_rubbish_in_the_hash_of_held_messages_is_buried(queue: Broker) -> None:
    """Its entries go back to their queues after the visibility timeout, every two seconds anew when that fails."""
    send(1, 2)
    ours = taken()
    kept: list[Any] = [ODD[0], "x", [ours], [ours, "", ""], [ours, "x", "default"], ["x", "", "default"], nested(200)]
    kept += [[ours, odd, "default"] for odd in UNHASHABLE] + [[ours, "", odd] for odd in UNHASHABLE]
    with app.connection_for_write() as link:
        for number, value in enumerate(kept):
            link.default_channel.client.hset("unacked", str(number), json.dumps(value))
            link.default_channel.client.zadd("unacked_index", {str(number): 1})

    with living_worker():
        wait_for(lambda: refused() == len(kept), "the dead letters")
        wait_for(lambda: left() == [], "an empty broker")


# --- RabbitMQ ---


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[str]:
    server = RabbitMQ(settings.VAR_DIR)
    try:
        server.start()
    except embedded.Unavailable as error:
        pytest.skip(str(error))
    yield server.url()
    server.stop()


@pytest.mark.parametrize("is_signed", [False, True])
def test_worker_of_rabbitmq_outlives_odd_messages(
    queue: Broker, rabbitmq: str, signed: dict[str, str], is_signed: bool
) -> None:
    variables = {"CELERY_BROKER_URL": rabbitmq, **(signed if is_signed else {})}
    send(1, 2, **(signed if is_signed else {}))
    ours = taken()
    odd = list(mutations([ours], COUNT, seed=4))
    queue.use(rabbitmq)

    with living_worker(**variables):
        publish(rabbitmq, odd)
        send(20, 22, **variables)
        wait_for(lambda: has_result("42"), "the task after them", AT_MOST)

    if is_signed:
        results = set(TaskResult.objects.exclude(result="42").values_list("task_id", "result"))
        assert results <= {(ours["headers"]["id"], "3")}
    assert refused() > COUNT / 3


class Raw(Message):
    """A message whose properties are bytes: those that a client could never write."""

    def _serialize_properties(self) -> bytes:
        content: bytes = self.raw
        return content


def publish(url: str, items: list[bytes]) -> None:
    """Publish what the bytes say, as far as AMQP can carry it and RabbitMQ does not end the connection for it."""
    link = Connection(url, transport_options={"confirm_publish": True})
    for item in items:
        try:
            link.default_channel.basic_publish(as_amqp(item), exchange="", routing_key="default")
        except AMQPError:
            link.close()
            link = Connection(url, transport_options={"confirm_publish": True})
            link.default_channel.basic_publish(Message(item), exchange="", routing_key="default")
    link.close()


def as_amqp(item: bytes) -> Message:
    try:
        whole = json.loads(item)
        body = base64.b64decode(whole["body"])
        message = Message(body, content_type=whole["content-type"], content_encoding=whole["content-encoding"])
        message.properties["application_headers"] = whole["headers"]
        message._serialize_properties()
    except Exception:
        return Message(item)
    return message


def test_properties_that_cannot_be_read_cost_no_connection(queue: Broker, rabbitmq: str) -> None:
    queue.use(rabbitmq)
    message = Raw(b"x")
    # A content type that is no UTF-8; what is no table RabbitMQ itself refuses.
    message.raw = b"\x80\x00\x02\xff\xfe"

    with living_worker(CELERY_BROKER_URL=rabbitmq), Connection(rabbitmq) as link, link.channel() as channel:
        channel.basic_publish(message, exchange="", routing_key="default")
        send(20, 22, CELERY_BROKER_URL=rabbitmq)
        wait_for(lambda: has_result("42"), "the task after them", SECONDS)
        wait_for(refused, "the dead letter")


def test_what_rabbitmq_gives_up_is_a_dead_letter_and_what_has_expired_is_none(queue: Broker, rabbitmq: str) -> None:
    queue.use(rabbitmq)
    # It declares its queue, as each process does that publishes.
    send(1, 2, CELERY_BROKER_URL=rabbitmq)
    with Connection(rabbitmq) as link, link.channel() as channel:
        DEAD.bind(channel).declare()

        def dead() -> int:
            count: int = channel.queue_declare(DEAD.name, passive=True).message_count
            return count

        ours = wait_for(lambda: channel.basic_get("default"), "the message")
        channel.basic_reject(ours.delivery_tag, requeue=False)
        wait_for(lambda: dead() == 1, "the one that was rejected")
        ours.properties["expiration"] = "1"
        channel.basic_publish(ours, exchange="", routing_key="default")
        # It expires when somebody asks for it.
        wait_for(lambda: is_gone(channel, "default"), "its end")
        wait_for(lambda: dead() == 2, "the one that has expired")

        with living_worker(CELERY_BROKER_URL=rabbitmq):
            send(20, 22, CELERY_BROKER_URL=rabbitmq)
            wait_for(lambda: has_result("42"), "a task", AT_MOST)
            wait_for(refused, "the dead letter")
            wait_for(lambda: dead() == 0, "an empty queue")

    letter = DeadLetter.objects.get()
    assert (letter.kind, letter.queue, letter.count) == (Kind.GIVEN_UP, "default", 1)
    assert (letter.reason, letter.task) == ("RabbitMQ says: rejected", "myproject.tasks.add")
    assert not has_result("3")


def is_gone(channel: Any, name: str) -> bool:
    if got := channel.basic_get(name):
        channel.basic_reject(got.delivery_tag, requeue=True)
    return got is None
