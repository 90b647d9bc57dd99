import uuid
from datetime import datetime, tzinfo

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from myproject.texts import WordsField

from .reports import FORMAT_OF_KIND, WITH_DATES, Format, Kind


class Period(models.TextChoices):
    """The days of a scheduled report: whole days, counted back from the day on which it runs."""

    YESTERDAY = "yesterday", "Yesterday"
    SEVEN_DAYS = "seven_days", "The seven days before"
    LAST_WEEK = "last_week", "Last week, Monday to Sunday"
    LAST_MONTH = "last_month", "Last month"


class ReportSchedule(models.Model):
    """A recurring report for several readers.

    Its times, and whether it is paused, are stored in django-celery-beat's row only: the page and the admin edit the
    same row.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = WordsField(max_length=100)
    kind = models.CharField(max_length=20, choices=Kind.choices, default=Kind.SALES)
    # Also a database default, for the old version during a rolling deploy.
    format = models.CharField(max_length=7, choices=Format.choices, default=Format.CSV, db_default=Format.CSV)
    period = models.CharField(max_length=10, choices=Period.choices, default=Period.LAST_WEEK)
    recipients = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="report_schedules")
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    periodic_task = models.OneToOneField(PeriodicTask, on_delete=models.PROTECT, related_name="report_schedule")
    last_due_at = models.DateTimeField(null=True, blank=True, help_text="The last time of its that was seen to.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=Kind.values), name="reportschedule_kind_known"),
            models.CheckConstraint(condition=FORMAT_OF_KIND, name="reportschedule_format_of_kind"),
            models.CheckConstraint(condition=Q(period__in=Period.values), name="reportschedule_period_known"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("reports:schedule", args=[self.pk])

    @property
    def what(self) -> str:
        """Its kind, format and days."""
        what, days = f"{self.get_kind_display()} as {self.get_format_display()}", self.get_period_display()
        return f"{what}: {days}" if self.is_dated else what

    @property
    def is_dated(self) -> bool:
        return self.kind in WITH_DATES

    @property
    def is_paused(self) -> bool:
        return not self.periodic_task.enabled

    @property
    def zone(self) -> tzinfo:
        crontab = self.periodic_task.crontab
        return crontab.timezone if crontab else timezone.get_default_timezone()

    def mark_seen_to(self, due_at: datetime) -> bool:
        """Take the slot that is due at that time; False if it was taken before."""
        behind = Q(last_due_at=None) | Q(last_due_at__lt=due_at)
        return bool(ReportSchedule.objects.filter(behind, pk=self.pk).update(last_due_at=due_at))
