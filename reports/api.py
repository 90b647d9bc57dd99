"""Reports for scripts, by the rules of the pages."""

from datetime import date, datetime
from typing import Any, cast
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Field, Query, Router, Schema
from ninja.responses import Status as Accepted

from accounts.models import User
from myproject.api.errors import Refused, not_valid_form

from . import downloads, services, tasks
from .forms import DaysForm, ReportForm
from .models import Kind, Report, TooMany

router = Router(tags=["Reports"])

PER_PAGE = 50
PAGE = Query(1, ge=1, le=100_000)


class NewReport(Schema):
    kind: str = Field(description="`statement` is everybody's own; the others are for staff.", max_length=20)
    format: str = Field(max_length=7)
    start: date | None = None
    end: date | None = Field(None, description="The last day, included.")
    customer: str = Field("", description="Of a statement that staff asks for: an e-mail address.", max_length=254)
    wants_mail: bool = False


class ReportStatus(Schema):
    id: UUID
    title: str
    kind: str
    format: str
    status: str
    rows_done: int
    error: str
    created_at: datetime
    finished_at: datetime | None
    url: str = Field(description="Where the status is.")
    file: str | None = Field(description="The file, for an hour, once the report is ready.")

    @staticmethod
    def resolve_url(report: Report) -> str:
        return reverse("api-1:report", args=[report.pk])

    @staticmethod
    def resolve_file(report: Report, context: Any) -> str | None:
        return downloads.address(report, context["request"].user) if report.is_ready else None


@router.post("reports/", response={202: ReportStatus}, summary="Ask for a report")
def ask(request: HttpRequest, response: HttpResponse, data: NewReport) -> Any:
    """Accept a report and queue it; its status is at `url`. The same one, while it is open, is not made twice."""
    person = cast(User, request.user)
    try:
        report = services.ask_for(person, **checked(person, data))
    except TooMany as error:
        raise Refused(str(error), code="too_many", status=409) from error
    tasks.generate_report.delay_on_commit(report_id=str(report.pk))
    response["Location"] = ReportStatus.resolve_url(report)
    return Accepted(202, report)


def checked(person: User, data: NewReport) -> dict[str, Any]:
    """Return what the forms of the pages make of it."""
    is_own = data.kind == Kind.STATEMENT and not data.customer
    if not (is_own or (person.is_staff and person.has_perms(["reports.view_report", "reports.add_report"]))):
        raise PermissionDenied
    form = (DaysForm if is_own else ReportForm)(data.dict())
    if not form.is_valid():
        raise not_valid_form(form)
    return form.cleaned_data | ({"kind": Kind.STATEMENT, "customer": person} if is_own else {})


class Reports(Schema):
    count: int
    results: list[ReportStatus]


@router.get("reports/", response=Reports, summary="Your reports, newest first")
def own_reports(request: HttpRequest, page: int = PAGE) -> Any:
    reports = Report.objects.of(request.user).order_by("-created_at", "-pk")
    start = (page - 1) * PER_PAGE
    return {"count": reports.count(), "results": reports[start : start + PER_PAGE]}


@router.get("reports/{uuid:pk}/", response=ReportStatus, url_name="report", summary="One report")
def report_detail(request: HttpRequest, pk: UUID) -> Any:
    return downloads.own_report(request, pk)
