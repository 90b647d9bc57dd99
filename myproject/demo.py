"""The demo's past: each app's `demo.py` fills its own tables, lower apps first, and says what the world knows of it.

`fill()` writes what an empty shop needs. `remember(past)` writes history, where there is none so far, and returns what
the counterparts would remember of it: rows for the sandbox, by the name of its table.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime, parseaddr
from importlib import import_module
from types import ModuleType
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.utils import timezone
from django.utils.module_loading import module_has_submodule

from durable.errors import TemporaryError
from myproject import http
from myproject.alerting.models import Alert, Canary
from myproject.groups import make_groups
from myproject.queues import QUEUES

# By kind of row, such as charges and mails.
Told = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Past:
    """The days before now in which the history happens."""

    now: datetime = field(default_factory=timezone.now)
    days: int = 90
    orders: int = 1_500
    # Random, so that ids of two histories differ.
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    # Is told how many orders have been written.
    show: Callable[[int], None] = lambda done: None

    def ago(self, **units: float) -> datetime:
        return self.now - timedelta(**units)


def fill() -> None:
    make_groups()


def remember(past: Past) -> Told:
    """Write two alerts that were sent, and canaries that have just run."""
    if Alert.objects.exists():
        return {}
    alerts = [
        Alert(
            cause="Orders that need a person",
            subject="Orders that need a person",
            message="One order is open for more than a day. Look for its charge at the provider.",
            first_at=past.ago(days=1, hours=3),
            last_at=past.ago(days=1, hours=3),
        ),
        Alert(
            cause="reports.tasks.generate_report PermanentError",
            subject="reports.tasks.generate_report gave up",
            message="PermanentError in a task; the worker's log says more.",
            count=4,
            told_count=4,
            first_at=past.ago(days=16),
            last_at=past.ago(hours=5),
        ),
    ]
    for alert in alerts:
        alert.sent_at, alert.told_count = alert.last_at + timedelta(seconds=1), alert.count
    Alert.objects.bulk_create(alerts)
    seen = {"sent_at": past.ago(seconds=2), "ran_at": past.ago(seconds=1.9), "watched_since": past.now}
    Canary.objects.bulk_create([Canary(queue=queue, **seen) for queue in QUEUES], ignore_conflicts=True)
    return {"messages": [message_of(alert) for alert in alerts]}


def message_of(alert: Alert) -> dict[str, Any]:
    title = f"{settings.SITE_NAME}: {alert.subject}"
    return {"title": title, "message": alert.message, "kind": "failure", "received": alert.last_at.timestamp()}


def mail_of(message: EmailMultiAlternatives, received: datetime) -> dict[str, Any]:
    """Return a mail as the sandbox keeps it, with the date of the past."""
    message.extra_headers["Date"] = format_datetime(received)
    raw = message.message().as_bytes().decode(errors="replace")
    # Of the envelope, as SMTP would tell it.
    ends = {"from": parseaddr(message.from_email)[1], "to": message.to, "received": received.timestamp(), "raw": raw}
    read = {"subject": message.subject, "text": message.body, "html": message.alternatives[0][0]}
    return {**ends, **read, "message_id": message.extra_headers["Message-ID"]}


def modules() -> Iterator[ModuleType]:
    """Yield the `demo` module of each app that has one, lower ones first."""
    for config in apps.get_app_configs():
        if module_has_submodule(config.module, "demo"):
            yield import_module(f"{config.name}.demo")


def remember_all(past: Past) -> Told:
    """Write the history of each app; return what to tell."""
    told: Told = defaultdict(list)
    for module in modules():
        for name, rows in module.remember(past).items():
            told[name] += rows
    return dict(told)


def tell(past: Past, told: Told) -> None:
    """Tell the sandbox. Raises `TemporaryError` or `http.Refused`."""
    if told and settings.SANDBOX_API:
        http.request("POST", f"{settings.SANDBOX_API}/history", timeout=60, json={"name": past.name, **told})


def world_answers(seconds: float) -> bool:
    """Return whether there is nobody to tell, or the sandbox answers within so many seconds."""
    deadline = time.monotonic() + seconds
    while settings.SANDBOX_API:
        try:
            http.request("GET", f"{settings.SANDBOX_API}/healthz", timeout=5)
        except TemporaryError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        else:
            break
    return True
