from typing import cast
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.models import User
from myproject.web.pages import staff_only

from . import planning, tasks
from .forms import ScheduleForm
from .models import Format, Kind, Report, ReportSchedule

# Reports that the page of a schedule lists.
SHOWN = 20


@require_http_methods(["GET", "HEAD", "POST"])
@staff_only
def schedule_list(request: HttpRequest) -> HttpResponse:
    new = ReportSchedule(made_by=cast(User, request.user), kind=Kind.SALES_BY_DAY, format=Format.PDF)
    form = ScheduleForm(request.POST or None, instance=new)
    if form.is_valid():
        return _save(request, form)
    rows = ReportSchedule.objects.select_related("periodic_task__crontab").order_by("name", "pk")
    context = {"form": form, "schedules": [(row, _next(row)) for row in rows]}
    return render(request, "reports/schedule_list.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@staff_only
def schedule_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    schedule = _schedule(pk)
    form = ScheduleForm(request.POST or None, instance=schedule)
    if form.is_valid():
        return _save(request, form)
    history = Report.objects.filter(schedule=pk).order_by("-created_at")[:SHOWN]
    readable = set(Report.objects.readable_by(request.user).filter(schedule=pk).values_list("pk", flat=True))
    context = {
        # As it is: the form has written what was posted into its own.
        "schedule": _schedule(pk),
        "form": form,
        "next": _next(schedule),
        "history": [(report, report.pk in readable) for report in history],
        "recipients": planning.recipients(schedule),
    }
    return render(request, "reports/schedule.html", context, status=422 if form.errors else 200)


@require_POST
@staff_only
def run_schedule(request: HttpRequest, pk: UUID) -> HttpResponse:
    schedule = _schedule(pk)
    if report := planning.run_now(schedule):
        tasks.generate_report.delay_on_commit(report_id=str(report.pk))
        messages.success(request, "It is being made, and its recipients are told when it is ready.")
    else:
        messages.error(request, "None of its recipients is on the staff of the shop any more: nobody would get it.")
    return redirect(schedule)


@require_POST
@staff_only
def pause_schedule(request: HttpRequest, pk: UUID, paused: bool) -> HttpResponse:
    schedule = _schedule(pk)
    planning.pause(schedule, paused)
    messages.success(request, f"{schedule} is {'paused' if paused else 'running again'}.")
    return redirect(schedule)


@require_POST
@staff_only
def delete_schedule(request: HttpRequest, pk: UUID) -> HttpResponse:
    schedule = _schedule(pk)
    planning.delete(schedule)
    messages.success(request, f"{schedule} is deleted; the reports that it made stay.")
    return redirect("reports:schedules")


def _save(request: HttpRequest, form: ScheduleForm) -> HttpResponse:
    planning.save(form.instance, form.cleaned_data["recipients"], form.crontab())
    messages.success(request, f"{form.instance} is saved.")
    return redirect(form.instance)


def _schedule(pk: UUID) -> ReportSchedule:
    return get_object_or_404(ReportSchedule.objects.select_related("periodic_task__crontab", "made_by"), pk=pk)


def _next(schedule: ReportSchedule) -> str:
    """Say when it runs next, in its own time; empty while it is paused."""
    return "" if schedule.is_paused else planning.told(planning.next_run(schedule), schedule.zone)
