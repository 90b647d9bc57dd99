"""What only RabbitMQ can show; `make brokers` runs these."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest
from amqp.exceptions import NotFound, PreconditionFailed
from django.conf import settings

from myproject import tasks
from myproject.celery import app
from myproject.monitoring.beat import Scheduler
from tests.broker import QUEUES, Broker
from tests.operations.test_addresses import certificate, listens, run, said_lines
from tests.ports import HOST, free_port
from tests.servers import IS_RABBITMQ, USER, RabbitMQ
from tests.servers import PASSWORD as RABBIT_PASSWORD
from tests.shop import wait_for

pytest_plugins = ["tests.broker"]
pytestmark = [pytest.mark.every_broker, pytest.mark.skipif(not IS_RABBITMQ, reason="of RabbitMQ only")]

Hire = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


@pytest.fixture
def hire(broker: Broker, log: Path) -> Iterator[Hire]:
    """Return what starts a worker for one queue where the test puts its messages, and waits until it is ready."""
    with ExitStack() as stack:

        def start(queue: str) -> subprocess.Popen[bytes]:
            command = [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "myproject",
                "worker",
                "--concurrency",
                "1",
                "--queues",
                queue,
            ]
            output = stack.enter_context(log.open("wb"))
            worker = subprocess.Popen(
                command, env=os.environ | {"CELERY_BROKER_URL": broker.url}, stdout=output, stderr=output
            )
            stack.callback(worker.wait)
            stack.callback(worker.kill)
            # Celery says so after it has bound the queues of retries.
            wait_for(lambda: b" ready." in log.read_bytes(), "the worker")
            return worker

        yield start


def exists(name: str) -> bool:
    with app.connection_for_read() as connection, connection.channel() as channel:
        try:
            channel.queue_declare(name, passive=True)
        except NotFound:
            return False
        return True


def forget(broker: Broker) -> None:
    with app.connection_for_write() as connection, connection.channel() as channel:
        for name in QUEUES:
            channel.queue_delete(name)


def test_worker_of_one_queue_declares_all_and_lets_retries_find_them(broker: Broker, hire: Hire, log: Path) -> None:
    forget(broker)

    hire("reports")

    assert all(map(exists, QUEUES))
    tasks.add.apply_async((1, 2), queue="mail", countdown=3)
    assert broker.lengths()["mail"] == 0
    wait_for(lambda: broker.lengths()["mail"] == 1, "the message that was due later")
    assert b"Failed to bind" not in log.read_bytes()


def test_queues_are_quorum_queues(broker: Broker) -> None:
    classic = settings.BROKER.queue["queue_arguments"] | {"x-queue-type": "classic"}

    # RabbitMQ refuses to declare a queue again as another kind than it is.
    with app.connection_for_write() as connection, pytest.raises(PreconditionFailed, match="x-queue-type"):
        connection.channel().queue_declare("orders", durable=True, auto_delete=False, arguments=classic)


def test_message_of_a_killed_worker_is_back_at_once(broker: Broker, hire: Hire) -> None:
    worker = hire("reports")
    tasks.wait.apply_async(kwargs={"seconds": 20}, queue="reports")
    wait_for(lambda: not broker.lengths()["reports"], "the worker to take it")

    worker.kill()

    wait_for(lambda: broker.lengths()["reports"] == 1, "the message to be back")


def test_beat_ends_when_it_was_cut_short_in_the_middle_of_an_answer(broker: Broker) -> None:
    scheduler = Scheduler(app, lazy=True)
    assert scheduler.connection.default_channel.is_open
    # The head of a frame, whose body was read already when TERM came: no more will come.
    scheduler.connection.connection.transport._read_buffer = struct.pack(">BHI", 1, 1, 1000)

    def end() -> None:
        for _ in range(2):
            scheduler.close()

    ending = Thread(target=end, daemon=True)
    ending.start()
    ending.join(20)

    assert not ending.is_alive()


# --- TLS ---


class SecureRabbitMQ(RabbitMQ):
    """One that speaks TLS only; `certificate` is what its clients have to trust."""

    port = free_port()

    def prepare(self) -> None:
        super().prepare()
        key, self.certificate = certificate(self.data, "localhost")
        config = self.data / "rabbitmq.conf"
        _, *others = config.read_text().splitlines()
        files = {"cacertfile": self.certificate, "certfile": self.certificate, "keyfile": key}
        options = [f"ssl_options.{name} = {path}" for name, path in files.items()]
        listeners = ["listeners.tcp = none", f"listeners.ssl.default = {HOST}:{self.port}"]
        config.write_text("\n".join([*listeners, *options, "ssl_options.verify = verify_none", *others, ""]))

    def answers(self) -> bool:
        return listens(self.port)


# Sends a message and takes it again, as this process does with its own settings.
ROUND = """import django; django.setup()
from myproject.celery import app
from myproject.tasks import heartbeat
with app.connection_for_write() as link:
    queue = app.amqp.queues["default"].bind(link.default_channel)
    queue.declare()
    heartbeat.apply_async(queue="default")
    while not (message := queue.get(no_ack=True)):
        pass
    print(message.headers["task"])
"""


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureRabbitMQ]:
    with SecureRabbitMQ(tmp_path_factory.mktemp("tls")) as server:
        yield server


def test_tls_trusts_the_certificate_that_the_address_names(secure: SecureRabbitMQ) -> None:
    url = f"amqps://{USER}:{RABBIT_PASSWORD}@localhost:{secure.port}/shop?ssl_ca_certs={secure.certificate}"

    code, said = run([sys.executable, "-c", ROUND], CELERY_BROKER_URL=url)

    assert (code, said_lines(said)) == (0, ["myproject.tasks.heartbeat"]), said


@pytest.mark.parametrize(("host", "query"), [("localhost", ""), (HOST, "?ssl_ca_certs={}")], ids=["unknown", "name"])
def test_tls_refuses_whom_it_cannot_verify(host: str, query: str, secure: SecureRabbitMQ) -> None:
    url = f"amqps://{USER}:{RABBIT_PASSWORD}@{host}:{secure.port}/shop{query.format(secure.certificate)}"

    code, said = run([sys.executable, "-c", ROUND], CELERY_BROKER_URL=url)

    assert code != 0
    assert "CERTIFICATE_VERIFY_FAILED" in said
