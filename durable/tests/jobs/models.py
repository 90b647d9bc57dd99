from datetime import timedelta

from django.db import models
from django.db.models import Q
from django.utils import timezone

from durable.leases import Lease, Leased, LeasedQuerySet
from durable.mail import MailQuerySet, OwesMail


class Job(Leased):
    """Work of one step: `effects` counts how often the world has seen it."""

    lease = Lease(open=Q(is_done=False), lasts=lambda: timedelta(seconds=2), max_attempts=3)

    is_done = models.BooleanField(default=False)
    has_failed = models.BooleanField(default=False)
    attempts = models.PositiveSmallIntegerField(default=0)
    effects = models.PositiveSmallIntegerField(default=0)

    objects = LeasedQuerySet["Job"].as_manager()


class Letter(OwesMail):
    """A row with one lease, that of its mail."""

    to = models.EmailField(default="reader@example.com")
    created_at = models.DateTimeField(default=timezone.now)

    objects = MailQuerySet.as_manager()
