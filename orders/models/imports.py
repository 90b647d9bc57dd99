"""Files of products that staff uploads, and the lines of them that could not be taken in."""

import logging
import uuid
from datetime import timedelta
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone

log = logging.getLogger(__name__)

# As the file of a report: what an import has taken in stays, and nobody asks for its file after a month.
IMPORT_KEPT = timedelta(days=30)


class ImportStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    DONE = "done", "Done"
    FAILED = "failed", "Failed"


OPEN_IMPORTS = [ImportStatus.QUEUED, ImportStatus.RUNNING]


class ProductImportQuerySet(models.QuerySet["ProductImport"]):
    def left_behind(self) -> Self:
        """Open imports that nobody works on although their time has come."""
        return self.filter(status__in=OPEN_IMPORTS, due_at__lte=timezone.now())

    def old(self) -> Self:
        return self.filter(finished_at__lt=timezone.now() - IMPORT_KEPT)


class ProductImport(models.Model):
    """One uploaded CSV file of products, taken in by a worker in chunks, each of which moves `rows_done` on."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="product_imports")
    token = models.UUIDField(help_text="From the upload form: a form that is sent twice imports once.")
    file = models.FileField(upload_to="imports")
    original_name = models.CharField(max_length=150)
    size = models.PositiveBigIntegerField(help_text="Bytes.")
    last_event_id = models.PositiveBigIntegerField(
        help_text="The newest order event at the upload: the stock that orders have moved since is put on the file's."
    )
    status = models.CharField(max_length=7, choices=ImportStatus.choices, default=ImportStatus.QUEUED)
    claimed_by = models.CharField(max_length=40, blank=True, help_text="The task that works on it, if any.")
    due_at = models.DateTimeField(null=True, blank=True, help_text="When the sweep takes it up if it stands still.")
    attempts = models.PositiveSmallIntegerField(default=0)
    rows_done = models.PositiveIntegerField(default=0, help_text="Where a worker that takes over goes on.")
    rows_total = models.PositiveIntegerField(null=True, blank=True, help_text="Known once the file was checked.")
    created_count = models.PositiveIntegerField(default=0)
    updated_count = models.PositiveIntegerField(default=0)
    rejected_count = models.PositiveIntegerField(default=0)
    error = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = ProductImportQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["requested_by", "token"], name="import_once_per_form"),
            models.CheckConstraint(condition=Q(status__in=ImportStatus.values), name="import_status_known"),
            models.CheckConstraint(
                condition=~Q(status=ImportStatus.DONE) | Q(rows_done=F("rows_total")), name="import_done_has_all_rows"
            ),
            models.CheckConstraint(
                condition=Q(rows_done=F("created_count") + F("updated_count") + F("rejected_count")),
                name="import_counts_each_row_once",
            ),
            models.CheckConstraint(
                condition=Q(status__in=OPEN_IMPORTS, due_at__isnull=False)
                | (~Q(status__in=OPEN_IMPORTS) & Q(due_at=None)),
                name="import_due_while_open",
            ),
        ]
        indexes = [
            models.Index(fields=["due_at"], name="import_open", condition=Q(status__in=OPEN_IMPORTS)),
            models.Index(fields=["-created_at"], name="import_newest_first"),
        ]

    def __str__(self) -> str:
        return self.original_name

    def get_absolute_url(self) -> str:
        return reverse("orders:import-detail", args=[self.pk])

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_IMPORTS

    def mark_running(self, claimant: str) -> bool:
        """Claim the import for `settings.IMPORT_LEASE`; False when it is finished or in another task's hands."""
        now = timezone.now()
        free = Q(status=ImportStatus.QUEUED) | Q(claimed_by=claimant) | Q(due_at__lte=now)
        claimed = (
            self._open()
            .filter(free)
            .update(
                status=ImportStatus.RUNNING,
                claimed_by=claimant,
                due_at=now + settings.IMPORT_LEASE,
                attempts=F("attempts") + 1,
            )
        )
        if claimed:
            self.refresh_from_db()
        return self._logged(claimed, "running")

    def mark_checked(self, claimant: str, rows_total: int) -> bool:
        return self._move_on(claimant, rows_total=rows_total)

    def mark_chunk_done(self, claimant: str, *, created: int, updated: int, rejected: int) -> bool:
        """Move on by one chunk, in its transaction; False when another worker has done that chunk, or ended it all."""
        return self._move_on(
            claimant,
            rows_done=F("rows_done") + created + updated + rejected,
            created_count=F("created_count") + created,
            updated_count=F("updated_count") + updated,
            rejected_count=F("rejected_count") + rejected,
        )

    def lock(self, claimant: str) -> bool:
        """Hold the row until the end of the transaction; False when it is no longer where this object stands."""
        return self._held(claimant).select_for_update().exists()

    def mark_done(self, claimant: str) -> bool:
        done = self._held(claimant).filter(rows_done=F("rows_total"))
        return self._logged(done.update(status=ImportStatus.DONE, due_at=None, finished_at=timezone.now()), "done")

    def mark_failed(self, claimant: str, reason: str) -> bool:
        """End the import that this task holds; False when it has ended, or when another task goes on with it."""
        failed = self._open().filter(claimed_by=claimant)
        fields = {"due_at": None, "finished_at": timezone.now(), "error": reason[:500]}
        return self._logged(failed.update(status=ImportStatus.FAILED, **fields), "failed")

    def _move_on(self, claimant: str, **fields: object) -> bool:
        moved = self._held(claimant).update(due_at=timezone.now() + settings.IMPORT_LEASE, **fields)
        if moved:
            self.refresh_from_db()
        return bool(moved)

    def _held(self, claimant: str) -> ProductImportQuerySet:
        # With `rows_done`, since the copy of a message has the same id: the slower of the two finds nothing.
        return self._open().filter(claimed_by=claimant, rows_done=self.rows_done)

    def _open(self) -> ProductImportQuerySet:
        return ProductImport.objects.filter(pk=self.pk, status__in=OPEN_IMPORTS)

    def _logged(self, count: int, what: str) -> bool:
        log.info("Import %s %s %s", self.pk, "is" if count else "is no longer to be", what)
        return bool(count)


class RejectedRow(models.Model):
    """A line of a file that could not be taken in, and why."""

    product_import = models.ForeignKey(ProductImport, on_delete=models.CASCADE, related_name="rejected_rows")
    line = models.PositiveIntegerField()
    reason = models.CharField(max_length=300)
    raw = models.CharField(max_length=200, blank=True, help_text="The beginning of its cells.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["product_import", "line"], name="rejected_line_once")]

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"
