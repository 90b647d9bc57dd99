"""How a report ended, which whoever waits for it is told once: by whoever ends the row, in the same transaction."""

from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet

from accounts.models import User
from accounts.services import notify

from .models import Report


@transaction.atomic
def finish(report: Report, name: str, *, row_count: int, size: int, preview: dict[str, Any] | None = None) -> bool:
    """Publish the file of that name and owe its notices; False when the report had ended before."""
    published = report.mark_ready(name, row_count=row_count, size=size, preview=preview)
    if published:
        tell(report, "is ready", f"Format: {report.get_format_display()}. Rows: {row_count:,}.")
    return published


@transaction.atomic
def fail(report: Report, reason: str) -> bool:
    """End the report and owe its notices; False when it had ended before."""
    failed = report.mark_failed(reason)
    if failed:
        tell(report, "could not be made", reason)
    return failed


def tell(report: Report, what: str, message: str) -> None:
    # Whoever ends a report may know no more of it than its id.
    report = Report.objects.get(pk=report.pk)
    for person in audience(report):
        notify(person, f"{report.title} {what}", message, report.get_absolute_url())


def audience(report: Report) -> QuerySet[User]:
    """Return who wants to be told of the report and may read it now; nobody who is no longer staff, or gone."""
    asked = Q(pk=report.requested_by_id) if report.wants_mail else Q(pk=None)
    people = User.objects.filter(asked | Q(pk__in=report.readers.values("pk")), is_active=True).order_by("pk")
    return people.filter(is_staff=True) if report.is_for_staff else people
