"""The brokers that the tests can run on; TEST_BROKER names one, and `make brokers` takes them in turn."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from amqp.exceptions import AMQPError
from kombu import Connection
from kombu.exceptions import OperationalError as BrokerError

from myproject import embedded
from tests.ports import HOST, free_port

NAME = os.environ.get("TEST_BROKER") or "valkey"
USER, PASSWORD = "shop", "lantern-loom"
VHOSTS = ("shop", "aside")
RIGHTS = {"user": USER, "configure": ".*", "write": ".*", "read": ".*"}
DEFINITIONS = {
    "vhosts": [{"name": name} for name in VHOSTS],
    "users": [{"name": USER, "password": PASSWORD, "tags": ""}],
    "permissions": [RIGHTS | {"vhost": name} for name in VHOSTS],
}
# Debian's program on the PATH becomes the user `rabbitmq` first, who may not read a test's folder.
PROGRAM = shutil.which("/usr/lib/rabbitmq/bin/rabbitmq-server") or shutil.which("rabbitmq-server")


class RedisOfThePath(embedded.Redis):
    """Redis itself; the wheel has Valkey."""

    def command(self) -> Sequence[str | Path]:
        if (program := shutil.which("redis-server")) is None:
            raise embedded.Unavailable("needs redis-server on the PATH")
        return [program, *super().command()[1:]]


class RabbitMQ(embedded.Server):
    """A rabbitmq-server with data, name, ports and port mapper (epmd) of its own, on loopback."""

    name = "rabbitmq"
    port = free_port()

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.mapper: subprocess.Popen[bytes] | None = None

    @classmethod
    def url(cls, vhost: str = VHOSTS[0]) -> str:
        return f"amqp://{USER}:{PASSWORD}@{HOST}:{cls.port}/{vhost}"

    def prepare(self) -> None:
        if None in (shutil.which("epmd"), PROGRAM):
            raise embedded.Unavailable("needs rabbitmq-server")
        self.mapper_port, self.node_port = free_port(), free_port()
        # Otherwise the server starts one that outlives it and listens on all addresses.
        self.mapper = subprocess.Popen(["epmd", "-port", str(self.mapper_port), "-address", HOST])
        definitions = self.data / "definitions.json"
        definitions.write_text(json.dumps(DEFINITIONS))
        (self.data / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = {HOST}:{self.port}\nload_definitions = {definitions}\n"
        )

    def command(self) -> Sequence[str | Path]:
        settings = {
            # Of the cookie by which nodes know each other.
            "HOME": self.data,
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": self.mapper_port,
            "RABBITMQ_DIST_PORT": self.node_port,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_NODENAME": f"shop-{self.port}@localhost",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": self.data / "rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.data / "plugins",
            "RABBITMQ_MNESIA_BASE": self.data / "mnesia",
            "RABBITMQ_LOG_BASE": self.data / "log",
            "RABBITMQ_PID_FILE": self.data / "rabbitmq.pid",
            # Lets the script become the server, instead of staying as its parent.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        return ["env", *(f"{name}={value}" for name, value in settings.items()), PROGRAM or ""]

    def answers(self) -> bool:
        try:
            with Connection(self.url(), connect_timeout=1) as connection:
                connection.connect()
        except (AMQPError, BrokerError, OSError):
            return False
        return True

    def orphan(self) -> int | None:
        return None

    def stop(self) -> None:
        super().stop()
        if self.mapper is not None:
            self.mapper.terminate()
            self.mapper.wait()
            self.mapper = None


BROKERS: dict[str, type[embedded.Server]] = {
    "valkey": embedded.Redis,
    "redis-server": RedisOfThePath,
    "rabbitmq": RabbitMQ,
}
IS_RABBITMQ = NAME == "rabbitmq"


def broker_url(home: Path) -> str:
    return RabbitMQ.url() if IS_RABBITMQ else embedded.broker_url(home)


def broker_aside(home: Path) -> str:
    """Return the address of the place where no worker takes a test's messages away."""
    return RabbitMQ.url(VHOSTS[1]) if IS_RABBITMQ else f"{embedded.broker_url(home)}?virtual_host=1"


def broker_at(port: int) -> str:
    """Return the address of a broker on this port of the machine, for what is no broker."""
    return f"{'amqp' if IS_RABBITMQ else 'redis'}://{HOST}:{port}/0"
