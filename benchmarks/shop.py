"""Our worker, exactly as in production but for what GATEWAY names: `celery -A benchmarks.shop worker`."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import django
from django.conf import settings

from myproject.celery import app

from . import gateway

django.setup()

from orders import payments  # noqa: E402

if os.environ.get("GATEWAY") == "inside":
    payments.charge = lambda payment: payments.Charged(gateway.charge(payment))


@app.task(ignore_result=True)
def noop() -> None:
    """Do nothing. Safe to repeat: it changes nothing."""


@app.task(ignore_result=True)
def leave_mark(*, path: str) -> None:
    """Note the time, as that of a file. Safe to repeat: the file stays."""
    Path(path).touch()


@app.task(ignore_result=True)
def answer(*, key: str) -> None:
    """Signal that the task has run. Safe to repeat: a second signal is ignored."""
    _redis().rpush(key, "done")


def note(key: str) -> None:
    """Leave a mark that `backlog.redis().llen` finds."""
    _redis().rpush(key, "x")


@cache
def _redis() -> Any:
    return app.connection_for_write(settings.CELERY_BROKER_URL).default_channel.client
