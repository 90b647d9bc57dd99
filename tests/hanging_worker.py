"""The shop's worker, whose main loop hangs when it is told to."""

import threading
from typing import Any

from celery.worker.control import control_command

from myproject.celery import app

__all__ = ["app"]


@control_command()
def hang(state: Any) -> None:
    threading.Event().wait()
