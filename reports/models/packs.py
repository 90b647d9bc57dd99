import logging
import uuid
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.urls import reverse
from django.utils import timezone

from durable.errors import ReasonField
from durable.leases import Lease, Leased, LeasedQuerySet

from .reports import OPEN, Report, private_files

log = logging.getLogger(__name__)


class PackStatus(models.TextChoices):
    COLLECTING = "collecting", "Collecting"
    BUNDLING = "bundling", "Bundling"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"
    EXPIRED = "expired", "File removed"


OPEN_PACK = [PackStatus.COLLECTING, PackStatus.BUNDLING]


class PackQuerySet(LeasedQuerySet["Pack"]):
    def of(self, person: object) -> Self:
        return self.filter(requested_by=person)

    def complete(self) -> Self:
        """Open packs whose reports have all ended, in whatever way."""
        still_made = Report.objects.filter(pack=OuterRef("pk"), status__in=OPEN)
        return self.filter(~Exists(still_made), status__in=OPEN_PACK)

    def claim_complete(self, pk: str) -> "list[Pack]":
        """Claim the pack if none of its reports is open; of several messages, one wins."""
        return self.claim(first=self.complete().filter(pk=pk), status=PackStatus.BUNDLING)

    def close(self, status: PackStatus, **fields: Any) -> "list[Pack]":
        """End those of these packs that are open; return them."""
        keys = self.finish(status=status, finished_at=timezone.now(), **fields)
        for pk in keys:
            log.info("Pack %s is %s", pk, status.value)
        return list(Pack.objects.filter(pk__in=keys).select_related("requested_by"))

    def to_expire(self) -> Self:
        """Finished packs whose file has been kept long enough."""
        return self.filter(status=PackStatus.READY, finished_at__lt=timezone.now() - settings.REPORT_KEPT)


class Pack(Leased):
    """The reports of a month, made side by side and bundled as one ZIP."""

    # The first attempt, and the retries of the task.
    lease = Lease(open=Q(status__in=OPEN_PACK), lasts=lambda: settings.REPORT_LIMIT, max_attempts=6)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="packs")
    month = models.DateField(help_text="Its first day.")
    status = models.CharField(max_length=10, choices=PackStatus.choices, default=PackStatus.COLLECTING)
    due_at = models.DateTimeField(
        null=True, blank=True, default=timezone.now, help_text="From when on the sweep may have it bundled."
    )
    attempts = models.PositiveSmallIntegerField(default=0)
    file = models.FileField(upload_to="packs", storage=private_files, blank=True)
    size = models.PositiveBigIntegerField(null=True, blank=True, help_text="Bytes.")
    missing_count = models.PositiveSmallIntegerField(default=0, help_text="Reports that could not be made.")
    error = ReasonField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

    is_for_staff = True

    objects = PackQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(status__in=PackStatus.values), name="pack_status_known"),
            models.CheckConstraint(condition=Q(month__day=1), name="pack_month_is_its_first_day"),
            models.CheckConstraint(condition=~Q(status=PackStatus.READY) | ~Q(file=""), name="pack_ready_has_file"),
            models.CheckConstraint(
                condition=Q(status__in=OPEN_PACK, due_at__isnull=False) | (~Q(status__in=OPEN_PACK) & Q(due_at=None)),
                name="pack_due_while_open",
            ),
            models.UniqueConstraint(
                fields=["requested_by", "month"], condition=Q(status__in=OPEN_PACK), name="pack_one_open_of_month"
            ),
        ]
        indexes = [
            models.Index(fields=["due_at"], name="pack_open", condition=Q(status__in=OPEN_PACK)),
            models.Index(fields=["requested_by", "-created_at"], name="pack_of_person"),
        ]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("reports:pack", args=[self.pk])

    @property
    def title(self) -> str:
        return f"Month-end pack {self.month:%B %Y}"

    @property
    def filename(self) -> str:
        return f"month-end-{self.month:%Y-%m}.zip"

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_PACK

    @property
    def is_ready(self) -> bool:
        return self.status == PackStatus.READY

    def mark_expired(self) -> bool:
        """Clear the row's file; False if another task did. The winner removes the file."""
        expired = Pack.objects.filter(pk=self.pk, status=PackStatus.READY).update(status=PackStatus.EXPIRED, file="")
        return bool(expired)
