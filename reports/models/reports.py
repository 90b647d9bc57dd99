import logging
import uuid
from datetime import date, datetime, time, timedelta
from functools import reduce
from importlib.util import find_spec
from operator import or_
from pathlib import PurePath
from typing import Any, NamedTuple, Self, cast

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.files.storage import Storage, storages
from django.db import connection, models, transaction
from django.db.models import Count, F, OuterRef, Q, Subquery, Window
from django.db.models.functions import Coalesce, RowNumber
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format

from durable.errors import ReasonField
from durable.leases import Lease, Leased, LeasedQuerySet

log = logging.getLogger(__name__)


class Status(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"
    EXPIRED = "expired", "File removed"


class Kind(models.TextChoices):
    SALES_BY_DAY = "sales_by_day", "Sales by day"
    SALES_BY_PRODUCT = "sales_by_product", "Sales by product"
    SALES_BY_CATEGORY = "sales_by_category", "Sales by category"
    SALES_BY_CUSTOMER = "sales_by_customer", "Sales by customer"
    SALES = "sales", "Order lines"
    STOCK = "stock", "Stock"
    STATEMENT = "statement", "Statement"
    PERSONAL_DATA = "personal_data", "Personal data"


class Format(models.TextChoices):
    CSV = "csv", "CSV"
    XLSX = "xlsx", "Excel (XLSX)"
    PDF = "pdf", "PDF"
    PARQUET = "parquet", "Parquet"
    JSON = "json", "JSON"


# The packages of those that have requirements of their own: requirements-pdf.txt, requirements-parquet.txt.
EXTRAS = {Format.PDF: "typst", Format.PARQUET: "pyarrow"}
MISSING = [form for form, package in EXTRAS.items() if not find_spec(package)]
DOCUMENTS = [Format.XLSX, Format.CSV, Format.PDF]
# Millions of lines are for programs: as a PDF they are useless, and only here is Parquet worth it.
FORMATS: dict[Kind, list[Format]] = dict.fromkeys(Kind, DOCUMENTS) | {
    Kind.SALES: [Format.CSV, Format.XLSX, Format.PARQUET],
    Kind.PERSONAL_DATA: [Format.JSON],
}
WITHOUT_DATES = [Kind.STOCK, Kind.PERSONAL_DATA]
WITH_DATES = [kind for kind in Kind if kind not in WITHOUT_DATES]
# About one customer, who may request their own.
WITH_CUSTOMER = [Kind.STATEMENT]
# A schedule may make reports that are about no single person.
SCHEDULED = [kind for kind in Kind if kind not in (*WITH_CUSTOMER, Kind.PERSONAL_DATA)]
FORMAT_OF_KIND = reduce(or_, (Q(kind=kind, format__in=formats) for kind, formats in FORMATS.items()))
OPEN = [Status.QUEUED, Status.RUNNING]
# Reports of one person are the same if these fields are equal: while one is open, a new request returns that one.
SAME = ["kind", "format", "start", "end", "customer"]
ASKED_FOR = Q(schedule=None, pack=None)
# Pauses before a retry for lack of resources; then the report ends *failed*. Attempts of killed workers count.
PAUSES = [timedelta(seconds=seconds) for seconds in (60, 120, 240)]
MAX_ATTEMPTS = len(PAUSES) + 1
# Any number that no other advisory lock of the shop uses.
TURN_LOCK = 7_233_667


class TooMany(Exception):
    """The person has reached the limit of open reports."""


def hold(person: Any) -> None:
    """Block other requests for reports of this person until the transaction ends."""
    list(get_user_model()._default_manager.filter(pk=person.pk).select_for_update(no_key=True).values_list("pk"))


def private_files() -> Storage:
    return storages["reports"]


class Days(NamedTuple):
    """Whole days in the shop's time zone, including the last one."""

    first: date
    last: date

    @property
    def length(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def start(self) -> datetime:
        return timezone.make_aware(datetime.combine(self.first, time.min))

    @property
    def end(self) -> datetime:
        """Midnight at the end of the last day."""
        return timezone.make_aware(datetime.combine(self.last + timedelta(days=1), time.min))

    @property
    def before(self) -> "Days":
        """The same number of days directly before these; raises `OverflowError` at the edge of the calendar."""
        return Days(self.first - timedelta(days=self.length), self.first - timedelta(days=1))


class ReportQuerySet(LeasedQuerySet["Report"]):
    def of(self, person: object) -> Self:
        return self.filter(requested_by=person)

    def make_room(self, person: Any, count: int = 1) -> None:
        """Hold the person until the transaction ends; raises `TooMany` if `count` more reports exceed their limit.

        The lock blocks only other requests for reports: orders of the person go on.
        """
        hold(person)
        if self.of(person).filter(status__in=OPEN).count() + count > settings.REPORTS_OPEN_MOST:
            raise TooMany(
                f"You can have at most {settings.REPORTS_OPEN_MOST} open reports. "
                "Please wait until some are ready, or cancel one."
            )

    def readable_by(self, person: Any) -> Self:
        """Reports that the person requested, or that a schedule made for them among others."""
        own = Report.objects.of(person.pk).values("pk")
        read = Report.readers.through.objects.filter(user=person.pk).values("report")
        # With OR, no index covers both, and all reports would be read.
        return self.filter(pk__in=own.union(read, all=True))

    def listed_for(self, person: Any) -> Self:
        """Reports for the person's list; those of a pack are listed on the pack's page."""
        return self.readable_by(person).filter(pack=None)

    def naming(self, person: object) -> Self:
        """Reports requested by the person alone, and reports about the person."""
        # A schedule's reports belong to its recipients.
        return self.filter(Q(requested_by=person, readers=None) | Q(customer=person))

    def statements(self) -> Self:
        """Statements that people requested about themselves."""
        return self.filter(kind=Kind.STATEMENT, customer=F("requested_by"))

    def personal(self) -> Self:
        return self.filter(kind=Kind.PERSONAL_DATA)

    def at_work(self) -> Self:
        return self.filter(status=Status.RUNNING, due_at__gt=timezone.now())

    def waiting(self) -> Self:
        """Reports that no worker has tried yet, and those that are due: after a pause, or because their worker died."""
        return self.filter(Report.lease.free())

    def in_turn(self) -> Self:
        """Waiting reports in the order they will run: everyone's first report, oldest first; then the second ones.

        Running reports count as well: `turn` is a report's number among that person's.
        """
        own = Window(RowNumber(), partition_by="requested_by", order_by=["created_at", "pk"])
        running = Report.objects.at_work().filter(requested_by=OuterRef("requested_by")).order_by()
        count = running.values("requested_by").values(count=Count("pk"))
        turn = own + Coalesce(Subquery(count), 0)
        return self.waiting().annotate(turn=turn).order_by("turn", "created_at", "pk")

    def next(self) -> "Report | None":
        """Return the next report; None if nothing waits, or only reports of people who are at their limit."""
        report = self.in_turn().first()
        return report if report and report.turn <= settings.REPORTS_AT_ONCE else None  # type: ignore[attr-defined]

    def claim_next(self) -> "Report | None":
        """Claim the next report."""
        with transaction.atomic():
            # One claim at a time: which report is next depends on what others have just claimed.
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [TURN_LOCK])
            report = self.next()
            begun: dict[str, Any] = {"started_at": timezone.now(), "rows_done": 0, "rows_total": None, "error": ""}
            named = self.filter(pk=report.pk) if report else self.none()
            claimed = self.claim(first=named, status=Status.RUNNING, **begun)
        return claimed[0] if claimed else None

    def close(self, status: Status, **fields: Any) -> list[Any]:
        """End those of these reports that are open; return their keys."""
        closed = self.finish(status=status, finished_at=timezone.now(), **fields)
        for pk in closed:
            log.info("Report %s is %s", pk, status.value)
        return closed

    def ended(self) -> Self:
        return self.exclude(status__in=OPEN)

    def to_expire(self) -> Self:
        """Finished reports whose file has been kept long enough."""
        return self.filter(status=Status.READY, finished_at__lt=timezone.now() - settings.REPORT_KEPT)


class Report(Leased):
    """A file that a person requests and a worker writes; its kind says what is in it."""

    lease = Lease(open=Q(status__in=OPEN), lasts=lambda: settings.REPORT_LEASE, max_attempts=MAX_ATTEMPTS)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="reports")
    kind = models.CharField(max_length=20, choices=Kind.choices, default=Kind.SALES)
    # Also a database default: during a rolling deploy the old version still writes reports.
    format = models.CharField(max_length=7, choices=Format.choices, default=Format.CSV, db_default=Format.CSV)
    start = models.DateField(null=True)
    end = models.DateField(null=True, help_text="The last day, included.")
    customer = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, blank=True, related_name="+"
    )
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.QUEUED)
    attempts = models.PositiveSmallIntegerField(default=0)
    started_at = models.DateTimeField(null=True, blank=True, help_text="When the last attempt began.")
    rows_done = models.PositiveBigIntegerField(default=0)
    rows_total = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="About how many there will be, where that is known."
    )
    file = models.FileField(upload_to="reports", storage=private_files, blank=True)
    row_count = models.PositiveBigIntegerField(null=True, blank=True)
    size = models.PositiveBigIntegerField(null=True, blank=True, help_text="Bytes.")
    # The first rows and the chart for the page: stored when the file is written, removed with it.
    preview = models.JSONField(null=True, blank=True, editable=False)
    error = ReasonField(max_length=300, blank=True)
    wants_mail = models.BooleanField("e-mail me when it is ready", default=False, db_default=False)
    readers = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="shared_reports")
    schedule = models.ForeignKey("ReportSchedule", on_delete=models.SET_NULL, null=True, blank=True)
    slot = models.DateField(null=True, blank=True, help_text="The schedule's day; none when it was run by hand.")
    pack = models.ForeignKey("Pack", on_delete=models.SET_NULL, null=True, blank=True, related_name="members")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = ReportQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(status__in=Status.values), name="report_status_known"),
            models.CheckConstraint(condition=Q(kind__in=Kind.values), name="report_kind_known"),
            models.CheckConstraint(
                condition=Q(kind__in=WITH_DATES, start__isnull=False, end__isnull=False)
                | (~Q(kind__in=WITH_DATES) & Q(start=None, end=None)),
                name="report_dates_where_needed",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=WITH_CUSTOMER, customer__isnull=False)
                | (~Q(kind__in=WITH_CUSTOMER) & Q(customer=None)),
                name="report_customer_where_needed",
            ),
            models.CheckConstraint(condition=FORMAT_OF_KIND, name="report_format_of_kind"),
            models.UniqueConstraint(
                fields=["requested_by", *SAME],
                condition=ASKED_FOR & Q(status__in=OPEN),
                nulls_distinct=False,
                name="report_same_while_open",
            ),
            models.CheckConstraint(condition=Q(end__gte=F("start")), name="report_end_not_before_start"),
            models.UniqueConstraint(fields=["schedule", "slot"], name="report_once_per_slot"),
            models.UniqueConstraint(
                fields=["schedule"], condition=Q(slot=None, status__in=OPEN), name="report_one_open_run_by_hand"
            ),
            models.UniqueConstraint(
                fields=["pack", "kind", "start", "end"],
                condition=Q(pack__isnull=False),
                nulls_distinct=False,
                name="report_once_in_pack",
            ),
            models.CheckConstraint(condition=~Q(status=Status.READY) | ~Q(file=""), name="report_ready_has_file"),
            models.CheckConstraint(
                condition=Q(status__in=OPEN, due_at__isnull=False) | (~Q(status__in=OPEN) & Q(due_at=None)),
                name="report_due_while_open",
            ),
        ]
        indexes = [
            models.Index(fields=["due_at"], name="report_open", condition=Q(status__in=OPEN)),
            models.Index(fields=["finished_at"], name="report_with_file", condition=Q(status=Status.READY)),
            models.Index(fields=["requested_by", "-created_at"], name="report_of_person"),
        ]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("reports:detail", args=[self.pk])

    @property
    def title(self) -> str:
        days = " to ".join(date_format(day, "j M Y") for day in self.days) if self.start else ""
        return f"{self.get_kind_display()}, {days}" if days else self.get_kind_display()

    @property
    def subtitle(self) -> str:
        """Its days or its date, and its customer; makes a query if there is a customer."""
        days = self.days if self.start else [timezone.localdate(self.created_at)]
        words = " to ".join(date_format(day, "j F Y") for day in days)
        return f"{words} · {self.customer}" if self.customer else words

    @property
    def filename(self) -> str:
        """The name of the downloaded file."""
        days = [self.start, self.end] if self.start else [timezone.localdate(self.created_at)]
        name = "-".join([self.get_kind_display().lower().replace(" ", "-"), *map(str, days)])
        return name + PurePath(str(self.file.name)).suffix

    @property
    def is_for_staff(self) -> bool:
        own_statement = self.kind == Kind.STATEMENT and self.customer_id == self.requested_by_id
        return self.kind != Kind.PERSONAL_DATA and not own_statement

    @property
    def asked_on(self) -> str:
        """The address of the page that offers this kind of report."""
        if self.is_for_staff:
            return reverse("reports:list")
        return reverse("reports:statement" if self.kind == Kind.STATEMENT else "personal-data")

    @property
    def days(self) -> Days:
        """The report's days; only those `WITH_DATES` have them."""
        return Days(cast(date, self.start), cast(date, self.end))

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def is_ready(self) -> bool:
        return self.status == Status.READY

    @property
    def rows_expected(self) -> int:
        return max(self.rows_done, self.rows_total or 0)

    @property
    def ends_at(self) -> datetime | None:
        """When it will be ready at the speed so far; None while unknown."""
        if not (self.started_at and self.rows_done and self.rows_total):
            return None
        now = timezone.now()
        return now + (now - self.started_at) / self.rows_done * (self.rows_expected - self.rows_done)

    @property
    def place(self) -> int | None:
        """Its position among the waiting reports, from 1; None if it does not wait. Makes a query."""
        if self.status != Status.QUEUED:
            return None
        waiting = list(Report.objects.in_turn().values_list("pk", flat=True))
        return waiting.index(self.pk) + 1 if self.pk in waiting else None

    def mark_ready(self, name: str, *, row_count: int, size: int, preview: dict[str, Any] | None = None) -> bool:
        """Publish the file of that name; False if the report was cancelled, or another task has taken it over."""
        counts = {"rows_done": row_count, "row_count": row_count, "size": size}
        return bool(self.held().close(Status.READY, file=name, preview=preview, error="", **counts))

    def mark_put_off(self, reason: str) -> bool:
        """Schedule a retry after a pause; False if the report has ended or its attempts are used up."""
        if self.attempts > len(PAUSES):
            return False
        put_off = self.put_off(PAUSES[self.attempts - 1], status=Status.QUEUED, error=reason)
        log.info("Report %s is %s", self.pk, "put off" if put_off else "no longer to be retried")
        return put_off

    def mark_cancelled(self) -> bool:
        """End the report. A worker that is writing it stops at its next heartbeat. False if the report had ended."""
        return bool(Report.objects.filter(pk=self.pk).close(Status.CANCELLED, error=""))

    def mark_expired(self) -> bool:
        """Clear the row's file; False if another task did. The winner removes the file."""
        ready = Report.objects.filter(pk=self.pk, status=Status.READY)
        expired = bool(ready.update(status=Status.EXPIRED, file="", preview=None))
        if expired:
            log.info("Report %s is expired", self.pk)
        return expired
