"""Uploaded files of products, and their rejected lines."""

import logging
import uuid
from datetime import timedelta
from typing import Self

from django.conf import settings
from django.db import connection, models
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone

from durable.errors import ReasonField
from durable.leases import Lease, Leased, LeasedQuerySet

log = logging.getLogger(__name__)

# As long as files of reports: imported products stay, and the file is not needed after a month.
IMPORT_KEPT = timedelta(days=30)


class ImportStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    DONE = "done", "Done"
    FAILED = "failed", "Failed"


OPEN_IMPORTS = [ImportStatus.QUEUED, ImportStatus.RUNNING]


class ProductImportQuerySet(LeasedQuerySet["ProductImport"]):
    def mark_failed(self, reason: str) -> list["ProductImport"]:
        """End those of these imports that are open; return them."""
        failed = self.finish(status=ImportStatus.FAILED, finished_at=timezone.now(), error=reason)
        return list(ProductImport.objects.filter(pk__in=failed).select_related("requested_by"))

    def old(self) -> Self:
        return self.filter(finished_at__lt=timezone.now() - IMPORT_KEPT)


class ProductImport(Leased):
    """One uploaded CSV file of products, imported in chunks, each of which advances `rows_done`."""

    # Killed workers count as attempts; afterwards an import is *failed*, not "running" forever.
    lease = Lease(open=Q(status__in=OPEN_IMPORTS), lasts=lambda: settings.IMPORT_LEASE, max_attempts=6)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="product_imports")
    token = models.UUIDField(help_text="From the upload form: a form that is sent twice imports once.")
    file = models.FileField(upload_to="imports")
    original_name = models.CharField(max_length=150)
    size = models.PositiveBigIntegerField(help_text="Bytes.")
    # The release before requires it; nothing reads it any more.
    last_event_id = models.PositiveBigIntegerField(default=0, db_default=0, editable=False)
    status = models.CharField(max_length=7, choices=ImportStatus.choices, default=ImportStatus.QUEUED)
    attempts = models.PositiveSmallIntegerField(default=0)
    rows_done = models.PositiveIntegerField(default=0, help_text="Where a worker that takes over goes on.")
    rows_total = models.PositiveIntegerField(null=True, blank=True, help_text="Known once the file was checked.")
    created_count = models.PositiveIntegerField(default=0)
    updated_count = models.PositiveIntegerField(default=0)
    rejected_count = models.PositiveIntegerField(default=0)
    error = ReasonField(max_length=500, blank=True)
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

    def mark_checked(self, rows_total: int) -> None:
        """Record how many rows the file has. Raises `LeaseLost`."""
        self._move_on(rows_total=rows_total)

    def mark_chunk_done(self, *, created: int, updated: int, rejected: int) -> None:
        """Advance by one chunk, in its transaction. Raises `LeaseLost`."""
        self._move_on(
            rows_done=F("rows_done") + created + updated + rejected,
            created_count=F("created_count") + created,
            updated_count=F("updated_count") + updated,
            rejected_count=F("rejected_count") + rejected,
        )

    def mark_done(self) -> bool:
        whole = self.held().filter(rows_done=F("rows_total"))
        return bool(whole.finish(status=ImportStatus.DONE, finished_at=timezone.now()))

    def _move_on(self, **fields: object) -> None:
        self.hold(**fields)
        self.refresh_from_db(fields=["rows_total", "rows_done", "created_count", "updated_count", "rejected_count"])


class StockSeenManager(models.Manager["StockSeen"]):
    def note(self, product_import: ProductImport) -> None:
        """Record the stock of all products, as the uploader may see it, in one statement."""
        sql = "INSERT INTO orders_stockseen (product_import_id, product_id, units) SELECT %s, id, stock - imported"
        with connection.cursor() as cursor:
            cursor.execute(f"{sql} FROM orders_product", [product_import.pk])


class StockSeen(models.Model):
    """The stock of a product when a file was uploaded: its import changes the stock by what it differs from this."""

    pk = models.CompositePrimaryKey("product_import_id", "product_id")
    product_import = models.ForeignKey(ProductImport, on_delete=models.CASCADE, related_name="stock_seen")
    # Without the constraint, whose check would lock every product, and wait for each order that reserves one.
    product = models.ForeignKey(
        "orders.Product", on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    units = models.BigIntegerField(help_text="Its stock, less all that imports had added.")

    objects = StockSeenManager()

    def __str__(self) -> str:
        return f"{self.units} of product {self.product_id}"


class RejectedRow(models.Model):
    """A rejected line of a file, and the reason."""

    product_import = models.ForeignKey(ProductImport, on_delete=models.CASCADE, related_name="rejected_rows")
    line = models.PositiveIntegerField()
    reason = ReasonField(max_length=300)
    raw = models.CharField(max_length=200, blank=True, help_text="The beginning of its cells.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["product_import", "line"], name="rejected_line_once")]

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"
