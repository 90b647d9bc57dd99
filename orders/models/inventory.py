"""What the shop took over from the warehouse, run by run."""

import logging
from datetime import timedelta
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone

from .orders import first_look

log = logging.getLogger(__name__)

KEPT = timedelta(days=30)
# Deaths of workers and retries together; after these a run ends *failed*, never "running" for ever.
MAX_ATTEMPTS = 10


class SyncStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Taken over"
    UNCHANGED = "unchanged", "Nothing new"
    FAILED = "failed", "Failed"


UNFINISHED = [SyncStatus.QUEUED, SyncStatus.RUNNING]


class Lost(Exception):
    """Another task has taken the run over: this one must not write any more."""


class InventorySyncQuerySet(models.QuerySet["InventorySync"]):
    def unfinished(self) -> Self:
        return self.filter(status__in=UNFINISHED)

    def left_behind(self) -> Self:
        """Unfinished runs that nobody works on although their time has come."""
        return self.unfinished().filter(due_at__lte=timezone.now())

    def old(self) -> Self:
        return self.filter(finished_at__lt=timezone.now() - KEPT)

    def with_differences(self) -> Self:
        """Count for each run what a person should know of."""
        return self.annotate(found=models.Count("differences"))

    def open_one(self) -> "InventorySync":
        """Return the run that is not finished yet, or a new one."""
        return self.unfinished().get_or_create(defaults={"due_at": first_look()})[0]

    def claim(self, claimant: str, pk: int) -> "InventorySync | None":
        """Take the run for `settings.INVENTORY_LEASE`; None when it is finished or in another task's hands."""
        now = timezone.now()
        free = Q(status=SyncStatus.QUEUED) | Q(claimed_by=claimant) | Q(due_at__lte=now)
        won = (
            self.unfinished()
            .filter(free, pk=pk)
            .update(
                status=SyncStatus.RUNNING,
                claimed_by=claimant,
                due_at=now + settings.INVENTORY_LEASE,
                attempts=F("attempts") + 1,
            )
        )
        return self.get(pk=pk) if won else None

    def etag_to_send(self) -> str:
        """Return what lets the warehouse answer "nothing new"; empty when the next run must look at everything."""
        last = self.filter(status__in=[SyncStatus.SUCCEEDED, SyncStatus.UNCHANGED]).order_by("-pk").first()
        return last.etag if last else ""

    def give_up(self) -> None:
        """End those that died too often."""
        tired = self.left_behind().filter(attempts__gte=MAX_ATTEMPTS)
        tired.close(SyncStatus.FAILED, error=f"It could not be finished in {MAX_ATTEMPTS} attempts.")

    def close(self, status: SyncStatus, **fields: object) -> bool:
        """Finish these runs; False where another task was faster."""
        closed = self.unfinished().update(status=status, due_at=None, finished_at=timezone.now(), **fields)
        if closed:
            log.info("Inventory sync is %s", status.value)
        return bool(closed)


class InventorySync(models.Model):
    """One time that the shop asked the warehouse for its levels. At most one is not finished."""

    status = models.CharField(max_length=9, choices=SyncStatus.choices, default=SyncStatus.QUEUED)
    claimed_by = models.CharField(max_length=40, blank=True, help_text="The task that works on it, if any.")
    due_at = models.DateTimeField(null=True, blank=True, help_text="When the sweep takes it up if nobody did before.")
    attempts = models.PositiveSmallIntegerField(default=0)
    version = models.BigIntegerField(null=True, blank=True, help_text="Of the warehouse's levels.")
    etag = models.CharField(max_length=100, blank=True, help_text="Empty: the next run looks at everything again.")
    seen = models.PositiveIntegerField(default=0, help_text="SKUs that the warehouse told.")
    changed = models.PositiveIntegerField(default=0, help_text="Products whose stock or level has changed.")
    error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = InventorySyncQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(status__in=SyncStatus.values), name="sync_status_known"),
            models.UniqueConstraint(
                # One value for all that are unfinished, whichever of the two statuses they have.
                models.Case(models.When(status__in=UNFINISHED, then=1)),
                name="sync_one_unfinished",
            ),
            models.CheckConstraint(
                condition=Q(status__in=UNFINISHED, due_at__isnull=False) | (~Q(status__in=UNFINISHED) & Q(due_at=None)),
                name="sync_due_while_unfinished",
            ),
        ]

    def __str__(self) -> str:
        return f"Inventory sync {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("orders:sync", args=[self.pk])

    @property
    def is_unfinished(self) -> bool:
        return self.status in UNFINISHED

    def hold(self, seen: int) -> None:
        """Note how many SKUs were seen, and keep others out until the transaction's end. Raises `Lost`."""
        if not self._mine().update(seen=seen):
            raise Lost(f"{self} is in the hands of another task.")

    def mark_waiting(self, reason: str, seconds: float) -> None:
        """Say why it is tried again; the sweep leaves it alone for as long as the warehouse asked to."""
        until = timezone.now() + settings.INVENTORY_LEASE + timedelta(seconds=seconds)
        self._mine().update(error=reason[:300], due_at=until)

    def mark_finished(self, status: SyncStatus, **fields: object) -> bool:
        return self._mine().close(status, **{"error": "", **fields})

    def _mine(self) -> InventorySyncQuerySet:
        return InventorySync.objects.unfinished().filter(pk=self.pk, claimed_by=self.claimed_by)


class Difference(models.TextChoices):
    """What a person should know of, in the words that staff reads."""

    UNKNOWN_HERE = "unknown_here", "The shop does not know this SKU"
    UNKNOWN_THERE = "unknown_there", "The warehouse does not know this SKU"
    OVERSOLD = "oversold", "More was lost than the shop has left to sell"
    UNUSABLE = "unusable", "The warehouse told a level that cannot be"
    CORRECTED = "corrected", "Seen for the first time: the stock was set by the warehouse"


# While one of these is open, "nothing new" from the warehouse does not mean that there is nothing to do.
TO_BE_SEEN_AGAIN = [Difference.UNKNOWN_HERE, Difference.OVERSOLD, Difference.UNUSABLE]


class InventoryDifference(models.Model):
    """One difference between shop and warehouse that a run has found."""

    sync = models.ForeignKey(InventorySync, on_delete=models.CASCADE, related_name="differences")
    kind = models.CharField(max_length=13, choices=Difference.choices)
    sku = models.CharField("SKU", max_length=40)
    detail = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [
            # A run that is tried again finds the same differences again.
            models.UniqueConstraint(fields=["sync", "kind", "sku"], name="difference_once_per_run"),
        ]

    def __str__(self) -> str:
        return f"{self.sku}: {self.get_kind_display()}"
