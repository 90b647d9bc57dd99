import logging
import uuid
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.urls import reverse
from django.utils import timezone

from .reports import OPEN, Report, private_files

log = logging.getLogger(__name__)


class PackStatus(models.TextChoices):
    COLLECTING = "collecting", "Collecting"
    BUNDLING = "bundling", "Bundling"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"
    EXPIRED = "expired", "File removed"


OPEN_PACK = [PackStatus.COLLECTING, PackStatus.BUNDLING]


class PackQuerySet(models.QuerySet["Pack"]):
    def of(self, person: object) -> Self:
        return self.filter(requested_by=person)

    def complete(self) -> Self:
        """Open packs of which no report is being made any more, however each has ended."""
        still_made = Report.objects.filter(pack=OuterRef("pk"), status__in=OPEN)
        return self.filter(~Exists(still_made), status__in=OPEN_PACK)

    def left_behind(self) -> Self:
        """Packs that could be bundled, and that nobody is bundling."""
        return self.complete().filter(due_at__lte=timezone.now())

    def to_expire(self) -> Self:
        """Finished packs whose file has been kept long enough."""
        return self.filter(status=PackStatus.READY, finished_at__lt=timezone.now() - settings.REPORT_KEPT)


class Pack(models.Model):
    """The reports of a month, made side by side and bundled as one ZIP."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="packs")
    month = models.DateField(help_text="Its first day.")
    status = models.CharField(max_length=10, choices=PackStatus.choices, default=PackStatus.COLLECTING)
    claimed_by = models.CharField(max_length=40, blank=True, help_text="The task that bundles it, if any.")
    due_at = models.DateTimeField(
        null=True, blank=True, default=timezone.now, help_text="From when on the sweep may have it bundled."
    )
    attempts = models.PositiveSmallIntegerField(default=0)
    file = models.FileField(upload_to="packs", storage=private_files, blank=True)
    size = models.PositiveBigIntegerField(null=True, blank=True, help_text="Bytes.")
    missing_count = models.PositiveSmallIntegerField(default=0, help_text="Reports that could not be made.")
    error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

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

    @property
    def is_readable(self) -> bool:
        """True while its person may still have the file."""
        return self.is_ready and self.requested_by.is_active and self.requested_by.is_staff

    def mark_bundling(self, claimant: str) -> bool:
        """Claim the pack for `settings.REPORT_LIMIT`; False while a report is still made, or another task bundles it.

        However many messages say that a report has ended, one of them gets True.
        """
        now = timezone.now()
        free = Q(status=PackStatus.COLLECTING) | Q(claimed_by=claimant) | Q(due_at__lte=now)
        claim = {"claimed_by": claimant, "due_at": now + settings.REPORT_LIMIT, "attempts": self.attempts + 1}
        # No two attempts have the same number: it is in the name of the file.
        rows = Pack.objects.complete().filter(free, pk=self.pk, attempts=self.attempts)
        claimed = rows.update(status=PackStatus.BUNDLING, **claim)
        self.attempts += claimed
        return self._logged(claimed, "bundling")

    def mark_ready(self, name: str, *, size: int, missing_count: int) -> bool:
        """Publish the file of that name; False when another task was faster."""
        return self._close(PackStatus.READY, file=name, size=size, missing_count=missing_count)

    def mark_failed(self, reason: str) -> bool:
        return self._close(PackStatus.FAILED, error=reason[:300])

    def mark_expired(self) -> bool:
        """Let go of the file; False when another task did. Whoever has won removes it."""
        expired = Pack.objects.filter(pk=self.pk, status=PackStatus.READY).update(status=PackStatus.EXPIRED, file="")
        return self._logged(expired, PackStatus.EXPIRED.value)

    def _close(self, status: PackStatus, **fields: object) -> bool:
        rows = Pack.objects.filter(pk=self.pk, status__in=OPEN_PACK)
        closed = rows.update(status=status, due_at=None, finished_at=timezone.now(), **fields)
        return self._logged(closed, status.value)

    def _logged(self, count: int, what: str) -> bool:
        log.info("Pack %s %s %s", self.pk, "is" if count else "is not to be", what)
        return bool(count)
