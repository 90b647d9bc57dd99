from datetime import date, timedelta
from typing import Any, cast
from uuid import UUID

from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_not_required
from django.core import signing
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.forms import DeleteAccountForm
from accounts.models import User
from durable import trace
from durable.errors import TemporaryError
from myproject.traces import waterfall
from myproject.web.pages import staff_may
from myproject.web.paging import page_of

from . import downloads, erasure, planning, services, tasks
from .forms import DaysForm, ReportForm
from .models import Format, Kind, Period, Report, TooMany

PER_PAGE = 12


@staff_may("reports.view_report", post="reports.add_report")
def report_list(request: HttpRequest) -> HttpResponse:
    form = ReportForm(request.POST or None, initial=_last_days() | {"kind": Kind.SALES_BY_DAY} | _asked(request))
    if form.is_valid():
        return _ask(request, **form.cleaned_data)
    page = page_of(request, Report.objects.listed_for(request.user).order_by("-created_at"), PER_PAGE)
    context = {"form": form, "page": page, "presets": _presets()}
    return render(request, "reports/report_list.html", context)


@require_http_methods(["GET", "POST"])
def statement(request: HttpRequest) -> HttpResponse:
    """Show one's own statements; by POST, request one."""
    form = DaysForm(request.POST or None, initial=_last_days() | {"format": Format.PDF} | _asked(request))
    if form.is_valid():
        return _ask(request, kind=Kind.STATEMENT, customer=request.user, **form.cleaned_data)
    reports = Report.objects.of(request.user).statements().order_by("-created_at")[:PER_PAGE]
    return render(request, "reports/statement.html", {"form": form, "reports": reports, "presets": _presets()})


def _asked(request: HttpRequest) -> dict[str, Any]:
    """Return what the address asks the form to begin with."""
    return {name: request.GET[name] for name in ("kind", "start", "end") if name in request.GET}


def _presets() -> dict[str, tuple[date, date]]:
    today = timezone.localdate()
    return {str(period.label): planning.days(period, today) for period in Period}


def _last_days() -> dict[str, Any]:
    today = timezone.localdate()
    return {"start": today - timedelta(days=29), "end": today}


def _ask(request: HttpRequest, **what: Any) -> HttpResponse:
    try:
        report = services.ask_for(cast(User, request.user), **what)
    except TooMany as error:
        messages.error(request, str(error))
        return redirect(request.path)
    tasks.generate_report.delay_on_commit(report_id=str(report.pk))
    return redirect(report)


@require_safe
def report_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    return render(request, "reports/report.html", {"report": downloads.own_report(request, pk)})


@require_safe
def report_status(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Render the live part of the report's page."""
    return render(request, "reports/_report.html", {"report": downloads.own_report(request, pk)})


@require_safe
def behind(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Show what ran for the report."""
    report = downloads.own_report(request, pk)
    return waterfall.answer(
        request,
        [trace.label_of(report)],
        title=report.title,
        back=report.get_absolute_url(),
        is_open=report.is_open,
    )


@require_POST
def cancel_report(request: HttpRequest, pk: UUID) -> HttpResponse:
    report = downloads.own_report(request, pk)
    if not report.mark_cancelled():
        messages.info(request, "The report had already ended.")
    return redirect(report)


@require_POST
def ask_again(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Request the same report again after it failed, was cancelled or lost its file."""
    old = downloads.own_report(request, pk)
    if old.is_for_staff and not request.user.has_perm("reports.add_report"):
        raise PermissionDenied
    try:
        report = services.ask_again(cast(User, request.user), old)
    except (TooMany, services.NotOffered) as error:
        messages.error(request, str(error))
        return redirect(old)
    tasks.generate_report.delay_on_commit(report_id=str(report.pk))
    return redirect(report)


@require_safe
def report_download(request: HttpRequest, pk: UUID) -> HttpResponse:
    return downloads.give_out(request, downloads.own_report(request, pk))


@require_safe
@login_not_required
@cache_control(private=True, no_store=True)
def file(request: HttpRequest, token: str) -> HttpResponseBase:
    """Serve the file to any holder of its signed address, such as a download manager without cookies.

    Each time it is asked whether the person to whom the address was given may still read it.
    """
    try:
        return downloads.answer(request, downloads.find(token))
    except signing.SignatureExpired:
        return render(request, "reports/link_expired.html", status=410)
    except (signing.BadSignature, ObjectDoesNotExist, FileNotFoundError) as error:
        raise Http404("There is no such file.") from error
    except TemporaryError as error:
        return render(request, "reports/file_away.html", {"reason": str(error)}, status=503)


# --- Personal data and account ---


@require_http_methods(["GET", "POST"])
def personal_data(request: HttpRequest) -> HttpResponse:
    """Show the exports of one's own data; by POST, request one, or find the one that is open."""
    exports = Report.objects.of(request.user).personal()
    if request.method == "GET":
        return render(request, "reports/personal_data.html", {"reports": exports.order_by("-created_at")[:PER_PAGE]})
    return _ask(request, kind=Kind.PERSONAL_DATA, format=Format.JSON)


@require_http_methods(["GET", "POST"])
def delete_account(request: HttpRequest) -> HttpResponse:
    person = cast(User, request.user)
    form = DeleteAccountForm(request.POST or None, user=person)
    if not form.is_valid():
        # Sent twice, the other request may have closed it meanwhile, with its password.
        if request.method == "POST" and User.objects.filter(pk=person.pk, is_active=False).exists():
            return redirect("orders:catalogue")
        return _ask_before_deletion(request, form, erasure.obstacles(person))
    try:
        erasure.close_own_account(person, request.POST.get("seen", ""))
    except erasure.Unsettled as error:
        return _ask_before_deletion(request, form, error.obstacles)
    except erasure.Changed as error:
        form.add_error(None, str(error))
        return _ask_before_deletion(request, form, [])
    tasks.erase_account.delay_on_commit(user_id=person.pk)
    logout(request)
    messages.success(request, f"Your account is deleted. We will confirm it by one last mail to {person.email}.")
    return redirect("orders:catalogue")


def _ask_before_deletion(request: HttpRequest, form: DeleteAccountForm, obstacles: list[str]) -> HttpResponse:
    context = {"form": form, "obstacles": obstacles, "shown": erasure.shown(cast(User, request.user))}
    return render(request, "reports/delete_account.html", context)
