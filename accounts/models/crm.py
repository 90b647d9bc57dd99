"""What the CRM should know about people, and what has been sent to it."""

from datetime import timedelta
from typing import Any, Self

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Greatest
from django.utils import timezone

from durable.errors import ReasonField
from durable.leases import Lease, Leased, LeasedQuerySet

from .people import User


class CrmStatus(models.TextChoices):
    WAITING = "waiting", "Waiting"
    SYNCED = "synced", "Synchronised"
    FAILED = "failed", "Failed, tried again tonight"
    REFUSED = "refused", "Refused"


class CrmContactQuerySet(LeasedQuerySet["CrmContact"]):
    def gave_up(self) -> Self:
        """Contacts whose attempts are used up; those that the CRM refused need a person."""
        return self.filter(status=CrmStatus.FAILED) | self.exhausted()

    def give_up(self) -> None:
        """Fail contacts whose attempts are used up without an answer of the CRM; they are tried again tonight."""
        error = f"It could not be sent in {CrmContact.lease.max_attempts} attempts."
        self.exhausted().finish(status=CrmStatus.FAILED, error=error)

    def want(self, **fields: Any) -> int:
        """Mark these contacts for synchronisation; return how many they are.

        A worker that is sending the previous version loses its lease.
        """
        # Versions must increase even if servers' clocks differ: the CRM keeps the newest one.
        newer = Greatest(F("wanted_at") + timedelta(microseconds=1), Value(timezone.now()))
        fields |= {"status": CrmStatus.WAITING, "wanted_at": newer, "error": ""}
        return self.update(**fields, **CrmContact.lease.fresh())


class CrmContact(Leased):
    """What the CRM should know about a person. The row outlives the account until the CRM has erased the contact.

    `wanted_at` is the version, which each change increases.
    """

    # The first attempt, and the task's retries.
    lease = Lease(
        open=Q(status=CrmStatus.WAITING), lasts=lambda: timedelta(minutes=2), max_attempts=6, message_first=False
    )

    external_id = models.BigIntegerField(primary_key=True, help_text="The person's id, by which the CRM knows them.")
    user = models.OneToOneField(User, null=True, on_delete=models.SET_NULL, related_name="crm_contact")
    is_erased = models.BooleanField("to be forgotten", default=False)
    status = models.CharField(max_length=7, choices=CrmStatus.choices, default=CrmStatus.WAITING)
    wanted_at = models.DateTimeField(default=timezone.now, help_text="When the person last changed.")
    due_at = models.DateTimeField(null=True, default=timezone.now)
    attempts = models.PositiveSmallIntegerField(default=0)
    synced_at = models.DateTimeField(null=True)
    error = ReasonField(max_length=300, blank=True)

    objects = CrmContactQuerySet.as_manager()

    class Meta:
        verbose_name = "CRM contact"
        constraints = [
            models.CheckConstraint(condition=Q(status__in=CrmStatus.values), name="crmcontact_status_known"),
            models.CheckConstraint(
                condition=Q(status=CrmStatus.WAITING, due_at__isnull=False)
                | (~Q(status=CrmStatus.WAITING) & Q(due_at=None)),
                name="crmcontact_due_while_waiting",
            ),
        ]
        indexes = [
            models.Index(fields=["due_at"], name="crmcontact_due", condition=Q(status=CrmStatus.WAITING)),
            models.Index(fields=["external_id"], name="crmcontact_failed", condition=Q(status=CrmStatus.FAILED)),
        ]

    def __str__(self) -> str:
        return f"Contact {self.pk}"

    def mark_synced(self) -> bool:
        """Record that the CRM has this version; False if the person has changed meanwhile."""
        return self.finish(status=CrmStatus.SYNCED, synced_at=timezone.now(), error="")

    def mark_delayed(self, reason: str, pause: timedelta) -> None:
        """Leave the contact to the task's next retry; after the last one it waits for the nightly catch-up."""
        if self.held().filter(self.lease.tired()).exists():
            self.mark_failed(reason)
        else:
            # The sweep must not come before the retry, nor before the CRM's Retry-After is over.
            self.put_off(pause + self.lease.lasts(), error=reason)

    def mark_failed(self, reason: str) -> None:
        self.finish(status=CrmStatus.FAILED, error=reason)

    def mark_refused(self, reason: str) -> None:
        self.finish(status=CrmStatus.REFUSED, error=reason)
