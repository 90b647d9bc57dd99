from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q

from durable.leases import Lease, Leased
from durable.mail import MailQuerySet, OwesMail


class Status(models.TextChoices):
    PENDING = "pending"
    ANSWERED = "answered"
    FAILED = "failed"


class Inquiry(Leased, OwesMail):
    """A question of a person. The row is the work: a task answers it, and then it owes its person a mail."""

    lease = Lease(
        open=Q(status=Status.PENDING),
        lasts=lambda: timedelta(seconds=settings.INQUIRY_LEASE_SECONDS),
        max_attempts=5,
    )

    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="inquiries")
    text = models.TextField(max_length=2000)
    answer = models.TextField(blank=True, editable=False)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING, editable=False)
    attempts = models.PositiveSmallIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = MailQuerySet.as_manager()

    class Meta(OwesMail.Meta):
        verbose_name_plural = "inquiries"
        indexes = [
            *OwesMail.Meta.indexes,
            models.Index(fields=["due_at"], name="inquiry_due", condition=Q(status=Status.PENDING)),
        ]

    def __str__(self) -> str:
        return f"Inquiry {self.pk}"
