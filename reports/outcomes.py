"""How a report ended. The transaction that ends the row also writes the notices, so that each is sent once."""

from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet

from accounts.models import User
from accounts.services import notify, staff_with

from .models import Report, ReportQuerySet, Status


@transaction.atomic
def finish(report: Report, name: str, *, row_count: int, size: int, preview: dict[str, Any] | None = None) -> bool:
    """Publish the file of that name and write the notices; False if the report had ended before."""
    published = report.mark_ready(name, row_count=row_count, size=size, preview=preview)
    if published:
        notify_of(report, "is ready", f"Format: {report.get_format_display()}. Rows: {row_count:,}.")
    return published


@transaction.atomic
def fail(reports: ReportQuerySet, reason: str) -> list[Report]:
    """End those of these reports that are open, and write the notices; return the reports."""
    failed = list(Report.objects.filter(pk__in=reports.close(Status.FAILED, error=reason)))
    for report in failed:
        notify_of(report, "could not be made", reason)
    return failed


def notify_of(report: Report, what: str, message: str) -> None:
    for person in audience(report):
        notify(person, f"{report.title} {what}", message, report.get_absolute_url())


def audience(report: Report) -> QuerySet[User]:
    """Return the people to notify: those who want it and may still read the report."""
    asked = Q(pk=report.requested_by_id) if report.wants_mail else Q(pk=None)
    people = staff_with("reports.view_report") if report.is_for_staff else User.objects.filter(is_active=True)
    return people.filter(asked | Q(pk__in=report.readers.values("pk"))).order_by("pk")
