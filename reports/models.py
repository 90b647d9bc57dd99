import logging
import uuid
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Self

from django.conf import settings
from django.core.files.storage import Storage, storages
from django.db import connection, models, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery, Window
from django.db.models.functions import Coalesce, RowNumber
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from orders.models import Product

log = logging.getLogger(__name__)


class Status(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"
    EXPIRED = "expired", "File removed"


class Kind(models.TextChoices):
    SALES = "sales", "Sales"
    PERSONAL_DATA = "personal_data", "Personal data"


# These are about days, and for staff; the others are for the person they are about.
WITH_DATES = [Kind.SALES]
# What a schedule may make.
SCHEDULED = [Kind.SALES]
OPEN = [Status.QUEUED, Status.RUNNING]
# What makes two reports of one person the same report: while one is open, whoever asks again gets that one.
SAME = ["kind", "start", "end"]
ASKED_FOR = Q(schedule=None, pack=None)
# Pauses before a report is tried again for lack of resources; after as many it ends *failed*. Deaths of workers count.
PAUSES = [timedelta(seconds=seconds) for seconds in (60, 120, 240)]
MAX_ATTEMPTS = len(PAUSES) + 1
# Any number, as long as no other lock of the shop has it.
TURN_LOCK = 7_233_667


class Cancelled(Exception):
    """The report is no longer this worker's to write: it was cancelled, or another one goes on with it."""


def private_files() -> Storage:
    return storages["reports"]


class ReportQuerySet(models.QuerySet["Report"]):
    def of(self, person: object) -> Self:
        return self.filter(requested_by=person)

    def readable_by(self, person: Any) -> Self:
        """Reports that the person asked for, or that a schedule makes for them among others."""
        read = Report.readers.through.objects.filter(report=OuterRef("pk"), user=person.pk)
        return self.filter(Q(requested_by=person.pk) | Exists(read))

    def personal(self) -> Self:
        return self.filter(kind=Kind.PERSONAL_DATA)

    def left_behind(self) -> Self:
        """Open reports that nobody works on although their time has come."""
        return self.filter(status__in=OPEN, due_at__lte=timezone.now())

    def at_work(self) -> Self:
        return self.filter(status=Status.RUNNING, due_at__gt=timezone.now())

    def waiting(self) -> Self:
        """Reports that nobody has tried yet, and those whose time has come: after a pause, or with a dead worker."""
        untried = Q(status=Status.QUEUED, attempts=0)
        return self.filter(status__in=OPEN, attempts__lt=MAX_ATTEMPTS).filter(untried | Q(due_at__lte=timezone.now()))

    def in_turn(self) -> Self:
        """Reports that wait, as they will be taken up: everybody's first, the oldest of them first; then the seconds.

        What a person has running counts as well: `turn` says which of that person's a report would be.
        """
        own = Window(RowNumber(), partition_by="requested_by", order_by=["created_at", "pk"])
        running = Report.objects.at_work().filter(requested_by=OuterRef("requested_by")).order_by()
        count = running.values("requested_by").values(count=Count("pk"))
        turn = own + Coalesce(Subquery(count), 0)
        return self.waiting().annotate(turn=turn).order_by("turn", "created_at", "pk")

    def next(self) -> "Report | None":
        """Return the report whose turn it is; None when nothing waits, or only for its person's others to end."""
        report = self.in_turn().first()
        return report if report and report.turn <= settings.REPORTS_AT_ONCE else None  # type: ignore[attr-defined]

    def claim(self, claimant: str) -> "Report | None":
        """Take the report whose turn it is, for `settings.REPORT_LEASE`."""
        with transaction.atomic():
            # One after the other: whose turn it is depends on what the others have just taken.
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [TURN_LOCK])
            report = self.next()
            return report if report and report.mark_running(claimant) else None

    def ended(self) -> Self:
        return self.exclude(status__in=OPEN)

    def to_expire(self) -> Self:
        """Finished reports whose file has been kept long enough."""
        return self.filter(status=Status.READY, finished_at__lt=timezone.now() - settings.REPORT_KEPT)


class Report(models.Model):
    """A file that a person asks for and a worker writes; of what, its kind says."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="reports")
    kind = models.CharField(max_length=13, choices=Kind.choices, default=Kind.SALES)
    start = models.DateField(null=True)
    end = models.DateField(null=True, help_text="The last day, included.")
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.QUEUED)
    claimed_by = models.CharField(max_length=40, blank=True, help_text="The task that works on it, if any.")
    due_at = models.DateTimeField(null=True, blank=True, help_text="When the sweep takes it up if nobody did before.")
    attempts = models.PositiveSmallIntegerField(default=0)
    started_at = models.DateTimeField(null=True, blank=True, help_text="When the last attempt began.")
    rows_done = models.PositiveBigIntegerField(default=0)
    rows_total = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="About how many there will be, where that is known."
    )
    file = models.FileField(upload_to="reports", storage=private_files, blank=True)
    row_count = models.PositiveBigIntegerField(null=True, blank=True)
    size = models.PositiveBigIntegerField(null=True, blank=True, help_text="Bytes.")
    error = models.CharField(max_length=300, blank=True)
    # Also a default of the database: while a new version is rolled out, the old one still writes reports.
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
        return f"{self.get_kind_display()} {self.start} to {self.end}" if self.start else self.get_kind_display()

    @property
    def filename(self) -> str:
        """What the file is called where it is downloaded."""
        days = [self.start, self.end] if self.start else [timezone.localdate(self.created_at)]
        name = "-".join([self.get_kind_display().lower().replace(" ", "-"), *map(str, days)])
        return name + PurePath(str(self.file.name)).suffix

    @property
    def is_for_staff(self) -> bool:
        return self.kind != Kind.PERSONAL_DATA

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
        """When it will be ready at the speed so far; None while that cannot be said."""
        if not (self.started_at and self.rows_done and self.rows_total):
            return None
        now = timezone.now()
        return now + (now - self.started_at) / self.rows_done * (self.rows_expected - self.rows_done)

    @property
    def place(self) -> int | None:
        """Which it is of those that wait, from 1; None when it does not wait in line. Makes a query."""
        if self.status != Status.QUEUED:
            return None
        waiting = list(Report.objects.in_turn().values_list("pk", flat=True))
        return waiting.index(self.pk) + 1 if self.pk in waiting else None

    @property
    def is_readable(self) -> bool:
        """True while its person may still have the file. May make a query."""
        person = self.requested_by
        is_theirs = person.is_active and (person.is_staff or not self.is_for_staff)
        return self.is_ready and (is_theirs or self.readers.filter(is_active=True, is_staff=True).exists())

    def mark_running(self, claimant: str) -> bool:
        """Begin an attempt; False when the report is finished or in another task's hands."""
        now = timezone.now()
        claim = {"claimed_by": claimant, "attempts": self.attempts + 1, "due_at": now + settings.REPORT_LEASE}
        progress = {"started_at": now, "rows_done": 0, "rows_total": None, "error": ""}
        free = Report.objects.waiting().filter(pk=self.pk, attempts=self.attempts)
        claimed = free.update(status=Status.RUNNING, **claim, **progress)
        if claimed:
            self.refresh_from_db()
        return self._logged(claimed, "running")

    def mark_alive(self, rows_done: int, rows_total: int | None) -> bool:
        """Note how far it is, and hold the report for another lease; False when it is no longer to be written."""
        due_at = timezone.now() + settings.REPORT_LEASE
        return bool(self._held().update(rows_done=rows_done, rows_total=rows_total, due_at=due_at))

    def mark_ready(self, name: str, *, row_count: int, size: int) -> bool:
        """Publish the file of that name; False when the report was cancelled, or another task goes on with it."""
        fields = {"rows_done": row_count, "row_count": row_count, "size": size, "error": ""}
        return self._close(self._held(), Status.READY, file=name, **fields)

    def mark_put_off(self, reason: str) -> bool:
        """Have it tried again after a pause; False when it is not to be, or was tried too often."""
        if self.attempts > len(PAUSES):
            return False
        due_at = timezone.now() + PAUSES[self.attempts - 1]
        put_off = self._held().update(status=Status.QUEUED, due_at=due_at, claimed_by="", error=reason[:300])
        return self._logged(put_off, "put off")

    def mark_failed(self, reason: str) -> bool:
        """End the attempt, and the report; False when it has ended, or another task goes on with it."""
        return self._close(self._held(), Status.FAILED, error=reason[:300])

    def mark_cancelled(self) -> bool:
        """End the report whoever works on it, and learns of it by its next sign of life; False when it has ended."""
        return self._close(Report.objects.filter(pk=self.pk, status__in=OPEN), Status.CANCELLED, error="")

    def mark_expired(self) -> bool:
        """Let go of the file; False when another task did. Whoever has won removes it."""
        expired = Report.objects.filter(pk=self.pk, status=Status.READY).update(status=Status.EXPIRED, file="")
        return self._logged(expired, Status.EXPIRED.value)

    def _close(self, reports: ReportQuerySet, status: Status, **fields: object) -> bool:
        closed = reports.update(status=status, due_at=None, finished_at=timezone.now(), **fields)
        return self._logged(closed, status.value)

    def _held(self) -> ReportQuerySet:
        # With `attempts`, since a message that is delivered twice has the same id.
        held = Report.objects.filter(pk=self.pk, status__in=OPEN)
        return held.filter(claimed_by=self.claimed_by, attempts=self.attempts)

    def _logged(self, count: int, what: str) -> bool:
        log.info("Report %s %s %s", self.pk, "is" if count else "is no longer to be", what)
        return bool(count)


# --- Daily sales: what the dashboard reads instead of a million orders ---


class Sales(models.Model):
    """What was sold, of it what has been refunded since, in `settings.CURRENCY`."""

    orders = models.PositiveIntegerField()
    units = models.PositiveIntegerField()
    revenue = models.DecimalField(max_digits=14, decimal_places=2, help_text="Before refunds.")
    refunded_orders = models.PositiveIntegerField()
    refunded_units = models.PositiveIntegerField()
    refunds = models.DecimalField(max_digits=14, decimal_places=2)

    class Meta:
        abstract = True

    @property
    def net(self) -> Decimal:
        return self.revenue - self.refunds


class DailySales(Sales):
    """All sales of one day in the shop's time zone; a refund counts on the day of its sale."""

    day = models.DateField(primary_key=True)

    class Meta:
        verbose_name_plural = "daily sales"

    def __str__(self) -> str:
        return str(self.day)


class DailyProductSales(Sales):
    """Of one day's sales those of one product. Orders of several products count for each, so they do not add up."""

    day = models.DateField()
    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="+")

    class Meta:
        verbose_name_plural = "daily sales of products"
        constraints = [models.UniqueConstraint(fields=["day", "product"], name="sales_once_per_day_and_product")]

    def __str__(self) -> str:
        return f"{self.day}, product {self.product_id}"


class SalesCount(models.Model):
    """How fresh the daily sales are: one row, which whoever counts them holds locked."""

    as_of = models.DateTimeField(null=True, help_text="What happened before is counted; empty: not all was, so far.")

    def __str__(self) -> str:
        return f"as of {self.as_of}"

    @classmethod
    def freshness(cls) -> datetime | None:
        return cls.objects.values_list("as_of", flat=True).first()

    @classmethod
    def lock(cls) -> None:
        """Let nobody else count until this transaction ends."""
        cls.objects.select_for_update().get_or_create(pk=1)

    @classmethod
    def mark_counted(cls, as_of: datetime) -> bool:
        """Say how fresh the daily sales are; False when a newer run has said so."""
        cls.objects.get_or_create(pk=1)
        return bool(cls.objects.filter(Q(as_of=None) | Q(as_of__lt=as_of)).update(as_of=as_of))


class Period(models.TextChoices):
    """The days of a scheduled report: always whole ones, seen from the day on which it runs."""

    YESTERDAY = "yesterday", "Yesterday"
    SEVEN_DAYS = "seven_days", "The seven days before"
    LAST_WEEK = "last_week", "Last week, Monday to Sunday"
    LAST_MONTH = "last_month", "Last month"


class ReportSchedule(models.Model):
    """A report that is made again and again, for several readers.

    When it runs, and whether it is paused, stands in beat's own row and nowhere else: the page and the admin edit the
    same thing.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=13, choices=Kind.choices, default=Kind.SALES)
    period = models.CharField(max_length=10, choices=Period.choices, default=Period.LAST_WEEK)
    recipients = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="report_schedules")
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    periodic_task = models.OneToOneField(PeriodicTask, on_delete=models.PROTECT, related_name="report_schedule")
    last_due_at = models.DateTimeField(null=True, blank=True, help_text="The last time of its that was seen to.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=Kind.values), name="reportschedule_kind_known"),
            models.CheckConstraint(condition=Q(period__in=Period.values), name="reportschedule_period_known"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("reports:schedule", args=[self.pk])

    @property
    def is_paused(self) -> bool:
        return not self.periodic_task.enabled

    @property
    def zone(self) -> tzinfo:
        crontab = self.periodic_task.crontab
        return crontab.timezone if crontab else timezone.get_default_timezone()

    def mark_seen_to(self, due_at: datetime) -> bool:
        """Take the report that is due at that time; False when somebody did before."""
        behind = Q(last_due_at=None) | Q(last_due_at__lt=due_at)
        return bool(ReportSchedule.objects.filter(behind, pk=self.pk).update(last_due_at=due_at))


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

    def mark_bundling(self, claimant: str) -> bool:
        """Claim the pack for `settings.REPORT_LIMIT`; False while a report is still made, or another task bundles it.

        However many messages say that a report has ended, one of them gets True.
        """
        now = timezone.now()
        free = Q(status=PackStatus.COLLECTING) | Q(claimed_by=claimant) | Q(due_at__lte=now)
        claim = {"claimed_by": claimant, "due_at": now + settings.REPORT_LIMIT, "attempts": F("attempts") + 1}
        claimed = Pack.objects.complete().filter(free, pk=self.pk).update(status=PackStatus.BUNDLING, **claim)
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
