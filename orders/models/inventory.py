"""Runs of the synchronisation with the warehouse."""

import logging
from datetime import timedelta
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from durable.errors import ReasonField
from durable.leases import Lease, Leased, LeasedQuerySet

log = logging.getLogger(__name__)

KEPT = timedelta(days=30)


class SyncStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Taken over"
    UNCHANGED = "unchanged", "Nothing new"
    FAILED = "failed", "Failed"


UNFINISHED = [SyncStatus.QUEUED, SyncStatus.RUNNING]


class InventorySyncQuerySet(LeasedQuerySet["InventorySync"]):
    def unfinished(self) -> Self:
        return self.filter(status__in=UNFINISHED)

    def old(self) -> Self:
        return self.filter(finished_at__lt=timezone.now() - KEPT)

    def with_differences(self) -> Self:
        """Annotate each run with the number of its differences."""
        return self.annotate(found=models.Count("differences"))

    def open_one(self) -> "InventorySync":
        """Return the run that is not finished yet, or a new one."""
        # Due soon, in case its message is lost, although the lease is long.
        fresh = InventorySync.lease.fresh() | InventorySync.lease.until(settings.ORDER_LEASE)
        return self.unfinished().get_or_create(defaults=fresh)[0]

    def etag_to_send(self) -> str:
        """Return the ETag of the last run; empty if the next run must read everything."""
        last = self.filter(status__in=[SyncStatus.SUCCEEDED, SyncStatus.UNCHANGED]).order_by("-pk").first()
        return last.etag if last else ""

    def give_up(self) -> None:
        """Fail runs whose attempts are used up."""
        error = f"It could not be finished in {InventorySync.lease.max_attempts} attempts."
        self.exhausted().close(SyncStatus.FAILED, error=error)

    def close(self, status: SyncStatus, **fields: Any) -> bool:
        """Finish these runs; False where another task was faster."""
        closed = self.finish(status=status, finished_at=timezone.now(), **fields)
        if closed:
            log.info("Inventory sync is %s", status.value)
        return bool(closed)


class InventorySync(Leased):
    """One synchronisation with the warehouse. At most one is unfinished."""

    # Killed workers and retries together; afterwards a run is *failed*, not "running" forever.
    lease = Lease(open=Q(status__in=UNFINISHED), lasts=lambda: settings.INVENTORY_LEASE, max_attempts=10)

    status = models.CharField(max_length=9, choices=SyncStatus.choices, default=SyncStatus.QUEUED)
    attempts = models.PositiveSmallIntegerField(default=0)
    version = models.BigIntegerField(null=True, blank=True, help_text="Of the warehouse's levels.")
    etag = models.CharField(max_length=100, blank=True, help_text="Empty: the next run looks at everything again.")
    seen = models.PositiveIntegerField(default=0, help_text="SKUs that the warehouse told.")
    changed = models.PositiveIntegerField(default=0, help_text="Products whose stock or level has changed.")
    error = ReasonField(max_length=300, blank=True)
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

    def mark_waiting(self, reason: str, seconds: float) -> None:
        """Record the reason for the retry; the sweep respects the warehouse's Retry-After."""
        self.put_off(settings.INVENTORY_LEASE + timedelta(seconds=seconds), error=reason)

    def mark_finished(self, status: SyncStatus, **fields: object) -> bool:
        return bool(self.held().close(status, **{"error": "", **fields}))


class Difference(models.TextChoices):
    """A difference, as staff read it."""

    UNKNOWN_HERE = "unknown_here", "The shop does not know this SKU"
    UNKNOWN_THERE = "unknown_there", "The warehouse does not know this SKU"
    OVERSOLD = "oversold", "More was lost than the shop has left to sell"
    UNUSABLE = "unusable", "The warehouse told a level that cannot be"
    CORRECTED = "corrected", "Seen for the first time: the stock was set by the warehouse"


# While one of these is open, the next run must read everything even if the warehouse has nothing new.
TO_BE_SEEN_AGAIN = [Difference.UNKNOWN_HERE, Difference.OVERSOLD, Difference.UNUSABLE]


class InventoryDifference(models.Model):
    """One difference between shop and warehouse that a run has found."""

    sync = models.ForeignKey(InventorySync, on_delete=models.CASCADE, related_name="differences")
    kind = models.CharField(max_length=13, choices=Difference.choices)
    sku = models.CharField("SKU", max_length=40)
    detail = ReasonField(max_length=200, blank=True)

    class Meta:
        constraints = [
            # A run that is tried again finds the same differences again.
            models.UniqueConstraint(fields=["sync", "kind", "sku"], name="difference_once_per_run"),
        ]

    def __str__(self) -> str:
        return f"{self.sku}: {self.get_kind_display()}"
