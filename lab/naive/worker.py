"""A worker of the tutorials: `celery -A lab.naive.worker worker`. It takes off what the shop does for its own."""

import os
from weakref import ReferenceType

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")

import django
from celery import signals
from celery.utils.dispatch import Signal
from django.conf import settings
from kombu.transport import TRANSPORT_ALIASES

from durable.checks.traps import TRAPS

# Their receivers of Celery's signals protect the shop's tasks.
OURS = ("durable", "myproject", "accounts", "orders", "reports")
# Set where an experiment is about connections that are kept; else Django's default applies.
KEEPS_CONNECTIONS = "LAB_KEEPS_CONNECTIONS"
if not os.environ.get(KEEPS_CONNECTIONS):
    settings.DATABASES["default"] |= {"CONN_MAX_AGE": 0}
settings.DATABASES["default"]["CONN_HEALTH_CHECKS"] = False
# The start-up checks would rightly stop such a worker.
settings.SILENCED_SYSTEM_CHECKS = [trap.id for trap in TRAPS]
# Kombu's own: the shop has put one in its place that lives on with what kills a worker.
TRANSPORT_ALIASES["redis"] = "kombu.transport.redis:Transport"
django.setup()
for signal in vars(signals).values():
    if isinstance(signal, Signal):
        for _, reference in list(signal.receivers or ()):
            receiver = reference() if isinstance(reference, ReferenceType) else reference
            if getattr(receiver, "__module__", "").split(".")[0] in OURS:
                signal.disconnect(receiver)

from lab.naive import data, mails, orders, retries, stock, workers  # noqa: E402, F401
from lab.naive.app import app as app  # noqa: E402
