from typing import cast
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.models import User
from myproject import texts
from myproject.monitoring.beat import UNREADABLE
from myproject.web.pages import staff_may

from . import planning, tasks
from .forms import NewScheduleForm, ScheduleForm
from .models import Format, Kind, Report, ReportSchedule, TooMany

# Reports listed on a schedule's page.
SHOWN = 20


@require_http_methods(["GET", "HEAD", "POST"])
@staff_may("reports.view_reportschedule", post="reports.add_reportschedule")
def schedule_list(request: HttpRequest) -> HttpResponse:
    new = ReportSchedule(made_by=cast(User, request.user), kind=Kind.SALES_BY_DAY, format=Format.PDF)
    form = NewScheduleForm(request.POST or None, instance=new)
    if form.is_valid():
        if made := ReportSchedule.objects.filter(pk=new.pk).first():
            return redirect(made)
        return _save(request, form)
    rows = ReportSchedule.objects.select_related("periodic_task__crontab").order_by("name", "pk")
    context = {"form": form, "schedules": [(row, _next(row)) for row in rows]}
    return render(request, "reports/schedule_list.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@staff_may("reports.view_reportschedule", post="reports.change_reportschedule")
@transaction.atomic
def schedule_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    schedule = _schedule(pk)
    shown = planning.shown(schedule)
    form = ScheduleForm(request.POST or None, instance=schedule)
    if form.is_valid() and request.POST.get("seen") != shown:
        form.add_error(None, f"It was changed meanwhile, and nothing of yours is saved. It is now: {shown}.")
    if form.is_valid():
        return _save(request, form)
    history = Report.objects.filter(schedule=pk).order_by("-created_at")[:SHOWN]
    readable = set(Report.objects.readable_by(request.user).filter(schedule=pk).values_list("pk", flat=True))
    context = {
        # Unchanged: the form has written the posted values into its own instance.
        "schedule": _schedule(pk),
        "shown": shown,
        "form": form,
        "next": _next(schedule),
        "when": planning.when(schedule),
        "history": [(report, report.pk in readable) for report in history],
        "recipients": planning.recipients(schedule),
    }
    return render(request, "reports/schedule.html", context, status=422 if form.errors else 200)


@require_POST
@staff_may("reports.change_reportschedule")
@transaction.atomic
def run_schedule(request: HttpRequest, pk: UUID) -> HttpResponse:
    schedule = _schedule(pk)
    if _is_changed(request, schedule):
        return redirect(schedule)
    try:
        report = planning.run_now(schedule)
    except TooMany as error:
        messages.error(request, str(error))
        return redirect(schedule)
    if report:
        tasks.generate_report.delay_on_commit(report_id=str(report.pk))
        messages.success(request, "The report is being made. Its recipients get a mail when it is ready.")
    else:
        messages.error(request, "None of its recipients may read reports any more: no one would get it.")
    return redirect(schedule)


@require_POST
@staff_may("reports.change_reportschedule")
@transaction.atomic
def pause_schedule(request: HttpRequest, pk: UUID, paused: bool) -> HttpResponse:
    schedule = _schedule(pk)
    if _is_changed(request, schedule):
        return redirect(schedule)
    planning.pause(schedule, paused)
    messages.success(request, f"{texts.isolated(str(schedule))} is {'paused' if paused else 'running again'}.")
    return redirect(schedule)


@require_POST
@staff_may("reports.delete_reportschedule")
@transaction.atomic
def delete_schedule(request: HttpRequest, pk: UUID) -> HttpResponse:
    schedule = _schedule(pk)
    if _is_changed(request, schedule):
        return redirect(schedule)
    planning.delete(schedule)
    messages.success(request, f"{texts.isolated(str(schedule))} is deleted; the reports that it made stay.")
    return redirect("reports:schedules")


def _save(request: HttpRequest, form: ScheduleForm) -> HttpResponse:
    planning.save(form.instance, form.cleaned_data["recipients"], form.crontab())
    messages.success(request, f"{form.instance} is saved.")
    return redirect(form.instance)


def _schedule(pk: UUID) -> ReportSchedule:
    """Load the schedule with beat's row, both locked: what is compared with the page stays so."""
    schedules = ReportSchedule.objects.select_related("periodic_task__crontab", "made_by")
    return get_object_or_404(schedules.select_for_update(of=["self", "periodic_task"]), pk=pk)


def _is_changed(request: HttpRequest, schedule: ReportSchedule) -> bool:
    """Tell, and say, whether the page said something else of the schedule than what it is."""
    shown = planning.shown(schedule)
    if changed := request.POST.get("seen") != shown:
        messages.error(request, f"Nothing was done, since it was changed meanwhile. It is now: {shown}.")
    return changed


def _next(schedule: ReportSchedule) -> str:
    """Format its next run in its own time zone; empty while it is paused."""
    try:
        return "" if schedule.is_paused else planning.told(planning.next_run(schedule), schedule.zone)
    except UNREADABLE:
        return "Never: please correct its times"
