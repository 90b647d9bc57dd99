"""The processes of an engine: started, killed with all that they have started, and what they cost."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil
from django.db import connection, transaction

from benchmarks.environment import HOME

# Locks of the tables are waited for while messages are written.
VARIABLES = {"GATEWAY": "inside", "LOG_LEVEL": "INFO", "DATABASE_LOCK_SECONDS": "300"}
STOP_SECONDS = 15
LOG = HOME / "processes.log"


class Worker:
    def __init__(self, commands: Sequence[str], **variables: str) -> None:
        self.commands, self.variables = commands, os.environ | VARIABLES | variables
        self.processes: list[psutil.Popen] = []

    def __enter__(self) -> "Worker":
        with LOG.open("ab") as log:
            self.processes = [
                psutil.Popen([sys.executable, *words.split()], env=self.variables, stdout=log, stderr=log)
                for words in self.commands
            ]
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self.processes:
            process.terminate()
        psutil.wait_procs(self.processes, timeout=STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill them as a machine that loses its power does."""
        for process in family(self.processes):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for process in self.processes:
            process.wait()

    def start_again(self) -> None:
        self.kill()
        self.__enter__()

    def seconds(self) -> tuple[float, float]:
        """Return the processor time that it has taken, and PostgreSQL and Redis meanwhile."""
        servers = [child for child in psutil.Process().children() if child not in self.processes]
        return processor_time(self.processes), processor_time(servers)


def family(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found += [process, *process.children(recursive=True)]
    return found


def processor_time(processes: Iterable[psutil.Process]) -> float:
    """Return the seconds of these, of their children, and of those that have ended."""
    total = 0.0
    for process in family(processes):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def last_words() -> str:
    return "\n".join(LOG.read_text(errors="replace").splitlines()[-20:])


@contextmanager
def held_back() -> Iterator[None]:
    """Let no worker claim an order before the end of the block."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE orders_order IN EXCLUSIVE MODE")
        yield
