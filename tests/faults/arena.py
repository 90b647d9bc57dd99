"""The shop's processes with two workers of the tests, kept running by a supervisor as in production."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self, TypeVar

import psutil
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from myproject import embedded
from myproject.celery import app
from tests.shop import SECONDS, Shop, answers, wait_for

T = TypeVar("T")
WORKER = "celery -A {app} --quiet worker --concurrency 2 --hostname {name}@%h"
WORKERS = ("worker-a", "worker-b")


def patiently(ask: Callable[[], T], seconds: float = SECONDS) -> T:
    """Ask again, over a new connection, while the database is away."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except (OperationalError, InterfaceError):
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class Arena(Shop):
    """The Procfile without Flower; what dies is started again, unless a test holds it down."""

    def __init__(self, postgres: embedded.Postgres, redis: embedded.Redis) -> None:
        super().__init__()
        self.postgres, self.redis = postgres, redis
        del self.commands["flower"], self.commands["worker"]
        self.staff_with("tests.faults.worker")
        self.lock, self.over, self.restarts = threading.RLock(), threading.Event(), 0

    def staff_with(self, module: str) -> None:
        """Let the workers that are started from now on run this app."""
        self.commands |= {name: WORKER.format(app=module, name=name) for name in WORKERS}

    def __enter__(self) -> Self:
        self.supervisor = threading.Thread(target=self.supervise)
        for name in self.commands:
            self.start(name)
        self.supervisor.start()
        try:
            self.wait_until_ready()
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.over.set()
        self.supervisor.join()
        for process in self.running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
        super().__exit__(*exc_info)

    def wait_until_ready(self) -> None:
        wait_for(lambda: answers(f"{settings.SITE_URL}/accounts/login/"), "the web server")
        wait_for(lambda: answers(f"{settings.SANDBOX_URL}/healthz"), "the sandbox")
        wait_for(self.all_workers_answer, "both workers")

    @staticmethod
    def all_workers_answer() -> bool:
        # This process's own connection may be one that Redis has lost meanwhile.
        try:
            return len(app.control.ping(timeout=1)) == len(WORKERS)
        except (OSError, RedisError, BrokerError):
            return False

    def supervise(self) -> None:
        while not self.over.wait(0.2):
            with self.lock:
                for name, process in list(self.running.items()):
                    if process.poll() is not None:
                        self.restarts += 1
                        self.start(name)

    def kill(self, name: str) -> None:
        with self.lock, suppress(ProcessLookupError):
            super().kill(name)

    def kill_child(self, name: str) -> None:
        for child in psutil.Process(self.running[name].pid).children()[:1]:
            child.kill()

    def terminate(self, name: str) -> None:
        self.running[name].terminate()

    def restart(self, name: str) -> None:
        """Stop a process as a deploy does, wait for it, and start it again."""
        with self.lock:
            old = self.running.pop(name)
        old.terminate()
        old.wait(SECONDS)
        self.start(name)

    def employ(self, module: str) -> None:
        """Replace the workers by such of another app."""
        self.staff_with(module)
        for name in WORKERS:
            self.restart(name)
        self.wait_until_ready()

    def freeze(self, name: str, seconds: float) -> None:
        process = {"redis": self.redis, "postgres": self.postgres}.get(name)
        running = process.process if process else self.running[name]
        assert running
        parent = psutil.Process(running.pid)
        family = [parent, *parent.children(recursive=True)]
        self.each(family, psutil.Process.suspend)
        time.sleep(seconds)
        self.each(family, psutil.Process.resume)

    @staticmethod
    def each(processes: list[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                act(process)

    def wipe_redis(self) -> None:
        with app.connection_for_write() as broker:
            broker.default_channel.client.flushall()
