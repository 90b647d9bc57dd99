"""What the CRM is to know of people, and what it has been told."""

from datetime import timedelta
from typing import Any, Self

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Greatest
from django.utils import timezone

from .people import User


class CrmStatus(models.TextChoices):
    WAITING = "waiting", "Waiting"
    SYNCED = "synced", "Synchronised"
    FAILED = "failed", "Failed, tried again tonight"
    REFUSED = "refused", "Refused"


class CrmContactQuerySet(models.QuerySet["CrmContact"]):
    def due(self) -> Self:
        """Contacts that wait although their time has come, and have not used up their attempts."""
        waiting = self.filter(status=CrmStatus.WAITING, due_at__lte=timezone.now())
        return waiting.filter(attempts__lt=CrmContact.MOST_ATTEMPTS)

    def gave_up(self) -> Self:
        """Contacts whose attempts are used up; those that the CRM refused are a person's."""
        died = Q(status=CrmStatus.WAITING, due_at__lte=timezone.now(), attempts__gte=CrmContact.MOST_ATTEMPTS)
        return self.filter(Q(status=CrmStatus.FAILED) | died)

    def want(self, **fields: Any) -> int:
        """Have the CRM told of these contacts, whatever it was told before; return how many they are."""
        now = timezone.now()
        # Never back in time, whatever the clocks of several servers say: the CRM keeps what is newest.
        newer = Greatest(F("wanted_at") + timedelta(microseconds=1), Value(now))
        fields |= {"status": CrmStatus.WAITING, "wanted_at": newer, "due_at": now}
        return self.update(**fields, claimed_by="", attempts=0, error="")

    def claim(self, external_id: int, claimant: str) -> "CrmContact | None":
        """Take the contact for one attempt; None when there is nothing to tell, or another task is telling it."""
        now = timezone.now()
        # A task that is tried again has kept its id.
        free = Q(due_at__lte=now) | Q(claimed_by=claimant)
        waiting = self.filter(free, pk=external_id, status=CrmStatus.WAITING)
        taken = waiting.update(due_at=now + CrmContact.LEASE, claimed_by=claimant, attempts=F("attempts") + 1)
        # Person and version in one statement: older data must not go out as a newer version.
        return self.select_related("user").get(pk=external_id) if taken else None


class CrmContact(models.Model):
    """What the CRM is to know of a person. The row outlives the person, until the CRM has forgotten them, too.

    `wanted_at` is the version: each change moves it on, and what one attempt did is recorded only if it stands still.
    """

    # How long one attempt may take before the sweep believes its worker dead; above the task's hard limit.
    LEASE = timedelta(minutes=2)
    # The first one, and the task's retries.
    MOST_ATTEMPTS = 6

    external_id = models.BigIntegerField(primary_key=True, help_text="The person's id, by which the CRM knows them.")
    user = models.OneToOneField(User, null=True, on_delete=models.SET_NULL, related_name="crm_contact")
    is_erased = models.BooleanField("to be forgotten", default=False)
    status = models.CharField(max_length=7, choices=CrmStatus.choices, default=CrmStatus.WAITING)
    wanted_at = models.DateTimeField(default=timezone.now, help_text="When the person last changed.")
    due_at = models.DateTimeField(null=True, default=timezone.now)
    claimed_by = models.CharField(max_length=40, blank=True, help_text="The task that works on it, if any.")
    attempts = models.PositiveSmallIntegerField(default=0)
    synced_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True)

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
        """Record that the CRM has this version; False when the person has changed meanwhile."""
        return bool(self._as_sent().update(status=CrmStatus.SYNCED, due_at=None, synced_at=timezone.now(), error=""))

    def mark_delayed(self, reason: str, pause: timedelta) -> None:
        """Leave the contact to the task's next attempt; without one it fails until tonight."""
        if self.attempts >= self.MOST_ATTEMPTS:
            self.mark_failed(reason)
        else:
            # The sweep comes after the retry, not before the pause that the CRM asked for is over.
            self._in_hand().update(due_at=timezone.now() + pause + self.LEASE, error=reason[:300])

    def mark_failed(self, reason: str) -> None:
        self._in_hand().update(status=CrmStatus.FAILED, due_at=None, error=reason[:300])

    def mark_refused(self, reason: str) -> None:
        self._in_hand().update(status=CrmStatus.REFUSED, due_at=None, error=reason[:300])

    def _as_sent(self) -> CrmContactQuerySet:
        return CrmContact.objects.filter(pk=self.pk, wanted_at=self.wanted_at)

    def _in_hand(self) -> CrmContactQuerySet:
        return self._as_sent().filter(claimed_by=self.claimed_by, status=CrmStatus.WAITING)
