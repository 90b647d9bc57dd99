from datetime import timedelta
from typing import cast
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_http_methods, require_safe

from accounts.forms import DeleteAccountForm
from accounts.models import User
from myproject.web import staff_only

from . import erasure, services, tasks
from .forms import ReportForm
from .models import Report

PER_PAGE = 12


@staff_only
def report_list(request: HttpRequest) -> HttpResponse:
    today = timezone.localdate()
    form = ReportForm(request.POST or None, initial={"start": today - timedelta(days=30), "end": today})
    if form.is_valid():
        form.instance.requested_by = request.user
        form.instance.due_at = timezone.now() + settings.REPORT_LEASE
        report = form.save()
        tasks.generate_report.delay_on_commit(report_id=str(report.pk))
        return redirect(report)
    # Those of a pack stand on its page.
    reports = Report.objects.readable_by(request.user).filter(pack=None)
    page = Paginator(reports.order_by("-created_at"), PER_PAGE)
    context = {"form": form, "page": page.get_page(request.GET.get("page"))}
    return render(request, "reports/report_list.html", context)


@require_safe
def report_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    return render(request, "reports/report.html", {"report": _own_report(request, pk)})


@require_safe
def report_status(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The part of the report page that updates itself."""
    return render(request, "reports/_report.html", {"report": _own_report(request, pk)})


@require_safe
@cache_control(private=True, no_store=True)
def report_download(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    report = _own_report(request, pk)
    if not report.is_ready:
        raise Http404("This report is not ready.")
    try:
        file = report.file.open()
    except FileNotFoundError as error:
        raise Http404("The file of this report was removed.") from error
    return FileResponse(file, as_attachment=True, filename=report.filename)


def _own_report(request: HttpRequest, pk: UUID) -> Report:
    """Load a report that is for the person: not even staff reads another's, and what is for staff stays there."""
    report = get_object_or_404(Report.objects.readable_by(request.user), pk=pk)
    if report.is_for_staff and not request.user.is_staff:
        raise PermissionDenied
    return report


# --- One's own data and account ---


@require_http_methods(["GET", "POST"])
def personal_data(request: HttpRequest) -> HttpResponse:
    """Show the exports of one's own data; by POST, ask for one, or find the one that is being made."""
    exports = Report.objects.of(request.user).personal()
    if request.method == "GET":
        return render(request, "reports/personal_data.html", {"reports": exports.order_by("-created_at")[:PER_PAGE]})
    report = services.ask_for_personal_data(cast(User, request.user))
    tasks.generate_report.delay_on_commit(report_id=str(report.pk))
    return redirect(report)


@require_http_methods(["GET", "POST"])
def delete_account(request: HttpRequest) -> HttpResponse:
    person = cast(User, request.user)
    form = DeleteAccountForm(request.POST or None, user=person)
    if not form.is_valid():
        context = {"form": form, "obstacles": erasure.obstacles(person)}
        return render(request, "reports/delete_account.html", context)
    try:
        erasure.close_account(person)
    except erasure.Unsettled as error:
        return render(request, "reports/delete_account.html", {"form": form, "obstacles": error.obstacles})
    tasks.erase_account.delay_on_commit(user_id=person.pk)
    logout(request)
    messages.success(request, f"Your account is deleted. A last mail to {person.email} says so, too.")
    return redirect("orders:catalogue")
