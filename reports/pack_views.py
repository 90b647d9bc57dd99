from typing import cast
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.models import User
from durable import trace
from myproject.traces import waterfall
from myproject.web.pages import staff_may
from myproject.web.paging import page_of

from . import downloads, packs, tasks
from .forms import PackForm
from .models import Pack, TooMany

PER_PAGE = 12


@require_http_methods(["GET", "HEAD", "POST"])
@staff_may("reports.view_pack", post="reports.add_pack")
def pack_list(request: HttpRequest) -> HttpResponse:
    form = PackForm(request.POST or None)
    if form.is_valid():
        try:
            pack = packs.ask_for_pack(cast(User, request.user), form.cleaned_data["month"])
        except TooMany as error:
            messages.error(request, str(error))
            return redirect("reports:packs")
        for report_id in packs.open_members(pack):
            tasks.generate_report.delay_on_commit(report_id=str(report_id))
        return redirect(pack)
    page = page_of(request, Pack.objects.of(request.user).order_by("-created_at"), PER_PAGE)
    context = {"form": form, "page": page}
    return render(request, "reports/pack_list.html", context, status=422 if form.errors else 200)


@require_safe
@staff_may("reports.view_pack")
def pack_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    return render(request, "reports/pack.html", _context(request, pk))


@require_safe
@staff_may("reports.view_pack")
def pack_status(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Render the live part of the pack's page."""
    return render(request, "reports/_pack.html", _context(request, pk))


@require_safe
@staff_may("reports.view_pack")
def behind(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Show what ran for the pack and its reports."""
    pack = _own_pack(request, pk)
    labels = [trace.label_of(row) for row in (pack, *pack.members.order_by("pk"))]
    return waterfall.answer(request, labels, title=pack.title, back=pack.get_absolute_url(), is_open=pack.is_open)


@require_safe
@staff_may("reports.view_pack")
def pack_download(request: HttpRequest, pk: UUID) -> HttpResponse:
    return downloads.give_out(request, _own_pack(request, pk))


def _context(request: HttpRequest, pk: UUID) -> dict[str, object]:
    pack = _own_pack(request, pk)
    members = list(pack.members.order_by("kind", "-start"))
    return {"pack": pack, "members": members, "ended": sum(not report.is_open for report in members)}


def _own_pack(request: HttpRequest, pk: UUID) -> Pack:
    return get_object_or_404(Pack.objects.of(request.user), pk=pk)
