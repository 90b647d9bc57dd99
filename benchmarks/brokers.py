"""Redis, Valkey and RabbitMQ side by side, under the same shop: `python -m benchmarks.brokers`.

Each round fills a backlog, starts a worker of two processes on it and tells how long the worker took; what it costs
to publish is measured from the publisher's side. The messages at both ends of a queue leave marks.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from myproject import embedded
from tests.servers import BROKERS, RabbitMQ

from . import environment

# Those of the tests; the first is what the others are compared with.
NAMES = ("redis-server", "valkey", "rabbitmq")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.brokers", description="The brokers side by side.")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--orders", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    compare(parser.parse_args())


def compare(options: argparse.Namespace) -> None:
    found: dict[str, list[list[float]]] = {name: [] for name in NAMES}
    with environment.servers(), ExitStack() as stack:
        urls = {name: stack.enter_context(server(name)) for name in NAMES}
        manage("migrate", "--verbosity", "0")
        for _ in range(options.rounds):
            for name, url in urls.items():
                found[name].append(once(url, options))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    sys.stdout.write("| | publish, ms | tasks/s | orders/s |\n|---|--:|--:|--:|\n")
    for name, row in medians.items():
        cells = (f"{value:.3g} ({value / base:.2f} ×)" for value, base in zip(row, medians[NAMES[0]], strict=True))
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")


@contextmanager
def server(name: str) -> Iterator[str]:
    """Run the broker; yields its address."""
    home = environment.HOME / name
    home.mkdir()
    with BROKERS[name](home):
        yield RabbitMQ.url() if name == "rabbitmq" else embedded.broker_url(home)


def manage(*command: str) -> None:
    subprocess.run([sys.executable, "manage.py", *command], check=True)


def once(url: str, options: argparse.Namespace) -> list[float]:
    """Measure in a process of its own, since a process knows one broker."""
    amounts = [str(options.tasks), str(options.orders)]
    command = [sys.executable, "-m", "benchmarks.broker_round", *amounts]
    variables = os.environ | {"CELERY_BROKER_URL": url, "GATEWAY": "inside", "LOG_LEVEL": "ERROR"}
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
