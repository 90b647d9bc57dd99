"""The admin's pages of results and schedules."""

import json
import re
from datetime import datetime, tzinfo
from functools import cache, partial
from typing import Any

from celery import Task
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django_celery_beat.admin import CrontabScheduleAdmin as BaseCrontabScheduleAdmin
from django_celery_beat.admin import IntervalScheduleAdmin as BaseIntervalScheduleAdmin
from django_celery_beat.admin import PeriodicTaskAdmin as BasePeriodicTaskAdmin
from django_celery_beat.admin import PeriodicTaskForm as BasePeriodicTaskForm
from django_celery_beat.admin import ScheduleAdmin as BaseScheduleAdmin
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask
from django_celery_results.admin import TaskResultAdmin as BaseTaskResultAdmin
from django_celery_results.models import TaskResult

from durable.task import survive
from myproject.celery import app
from myproject.monitoring.beat import OVERDUE, in_words, next_runs
from myproject.web.admin import ActingAdmin, EditedForm, ReadOnlyAdmin

ARGUMENT = re.compile(r"'(\w+_id)': '?([\w-]+)")
QUEUES = [(queue.name, queue.name) for queue in settings.CELERY_TASK_QUEUES]

admin.site.unregister(TaskResult)


@admin.register(TaskResult)
class TaskResultAdmin(ReadOnlyAdmin, BaseTaskResultAdmin):
    list_display = ["task_name", "subject", "status", "date_done", "worker", "task_id"]
    list_display_links = ["task_name"]
    list_filter = ["status", "date_done", "task_name", "worker"]
    search_fields = ["task_id", "task_name", "task_kwargs"]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not settings.RESULTS_IN_DATABASE:
            messages.warning(request, "New results are not kept in the database, so this list shows old ones at most.")
        return super().changelist_view(request, extra_context)

    @admin.display(description="Works on")
    def subject(self, result: TaskResult) -> str:
        """Link to the row whose id the task was given."""
        for name, pk in ARGUMENT.findall(result.task_kwargs or ""):
            if page := pages().get(name):
                return format_html('<a href="{}">{} {}</a>', reverse(page, args=[pk]), name.removesuffix("_id"), pk[:8])
        return ""


@cache
def pages() -> dict[str, str]:
    """Return the page of the row that each argument of a task is the id of; each app's admin says its own."""
    pages = {getattr(page, "task_argument", ""): model._meta for model, page in admin.site._registry.items()}
    return {name: f"admin:{meta.app_label}_{meta.model_name}_change" for name, meta in pages.items() if name}


admin.site.unregister(PeriodicTask)


class PeriodicTaskForm(EditedForm, BasePeriodicTaskForm):
    """Rejects what beat could not read or no worker would run."""

    queue = forms.ChoiceField(required=False, choices=[("", "As its task says"), *QUEUES])

    @cached_property
    def changed_data(self) -> list[str]:
        changed: list[str] = super().changed_data
        # A choice from the list of registered tasks changes the task.
        return changed if "regtask" not in changed or "task" in changed else [*changed, "task"]

    def clean(self) -> dict[str, Any]:
        if "task" in self.errors:
            return self.cleaned_data
        cleaned: dict[str, Any] = super().clean()
        app.loader.import_default_modules()
        task = app.tasks.get(cleaned["task"])
        if task is None:
            self.add_error("task", f"No worker knows a task {cleaned['task']}.")
        elif not self.errors:
            self.check_call(task, json.loads(cleaned["args"]), json.loads(cleaned["kwargs"]))
            self.check_schedule(cleaned)
        return cleaned

    def check_call(self, task: Task, args: list[Any], kwargs: dict[str, Any]) -> None:
        try:
            task.__header__(*args, **kwargs)
        except TypeError as error:
            self.add_error("kwargs", f"The task does not take these arguments: {error}.")

    def check_schedule(self, cleaned: dict[str, Any]) -> None:
        chosen = {name: cleaned.get(name) for name in ("interval", "crontab", "solar", "clocked")}
        if not any(chosen.values()):
            return
        try:
            next_runs(PeriodicTask(**chosen, date_changed=timezone.now()), 1)
        except Exception as error:
            self.add_error(None, f"Beat could not work with this schedule: {error}")

    def clean_args(self) -> str:
        return self.clean_json("args", list, "a list, such as [1, 2]")

    def clean_kwargs(self) -> str:
        return self.clean_json("kwargs", dict, 'an object, such as {"x": 1}')

    def clean_headers(self) -> str:
        return self.clean_json("headers", dict, 'an object, such as {"x": "1"}')

    def clean_json(self, field: str, kind: type, meant: str) -> str:
        text: str = self.cleaned_data.get(field) or json.dumps(kind())
        try:
            fits = isinstance(json.loads(text), kind)
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(f"This is not JSON: {error}.") from error
        if not fits:
            raise forms.ValidationError(f"This must be {meant}.")
        return text


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(ActingAdmin, BasePeriodicTaskAdmin):
    form = PeriodicTaskForm
    # The package's form has an inline script, which our Content-Security-Policy blocks.
    change_form_template = "admin/run_now.html"
    list_display = ["name", "enabled", "when", "last_run", "next_run", "task"]
    list_filter = ()
    date_hierarchy = None
    ordering = ["name"]
    actions = ["enable_tasks", "disable_tasks", "run_tasks"]
    readonly_fields = ["last_run_at", "crontab_translation", "preview"]
    # The queue determines the route; a wrong exchange would drop the messages.
    fieldsets = [
        (None, {"fields": ["name", "regtask", "task", "enabled", "description"]}),
        ("Schedule", {"fields": ["interval", "crontab", "crontab_translation", "solar", "clocked"]}),
        ("When", {"fields": ["start_time", "expires", "one_off", "last_run_at", "preview"]}),
        ("Arguments", {"fields": ["args", "kwargs"]}),
        ("Message", {"fields": ["queue", "expire_seconds", "priority", "headers"]}),
    ]

    def save_model(self, request: HttpRequest, obj: PeriodicTask, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if "enabled" in form.changed_data and not obj.enabled:
            # The extension forgets the last run of one that is paused, so that it does not catch up when it is resumed.
            PeriodicTask.objects.filter(pk=obj.pk).update(last_run_at=None)

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        context["shown"] = shown(kwargs["obj"]) if kwargs.get("obj") else ""
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="Schedule")
    def when(self, row: PeriodicTask) -> str:
        return in_words(row.crontab) if row.crontab else str(row.scheduler).capitalize()

    @admin.display(description="Last run", ordering="last_run_at", empty_value="–")
    def last_run(self, row: PeriodicTask) -> str | None:
        return told(row.last_run_at) if row.last_run_at else None

    @admin.display(description="Next run", empty_value="–")
    def next_run(self, row: PeriodicTask) -> str | None:
        try:
            runs = next_runs(row, 1)
        except Exception as error:
            return f"Cannot be read: {error}"
        if runs and runs[0] < timezone.now() - OVERDUE:
            return f"Overdue since {told(runs[0])}: does beat run?"
        return told(runs[0]) if runs else None

    @admin.display(description="Next runs")
    def preview(self, row: PeriodicTask) -> str:
        """List the next five, in the shop's time and where it differs in the schedule's own."""
        if not row.pk:
            return "Shown once it is saved."
        try:
            runs = next_runs(row, 5)
        except Exception as error:
            return f"Cannot be read: {error}"
        lines = [[f"{told(run)}{told_there(run, row)}"] for run in runs]
        line_break = mark_safe("<br>")  # nosec B308 # no word of anybody's
        return format_html_join(line_break, "{}", lines) or "None, as it is now."

    def crontab_translation(self, row: PeriodicTask) -> str:
        # The extension's own fails for a schedule that is no crontab.
        return in_words(row.crontab) if row.crontab else ""

    @admin.action(description="Enable selected tasks")
    def enable_tasks(self, request: HttpRequest, rows: QuerySet[PeriodicTask]) -> None:
        # As the form does: runs that were due while it was disabled are skipped.
        rows.filter(enabled=False).update(date_changed=timezone.now())
        super().enable_tasks(request, rows)

    @admin.action(description="Run now, beside the schedule")
    def run_tasks(self, request: HttpRequest, rows: QuerySet[PeriodicTask]) -> None:
        for row in rows.order_by("name"):
            # The button of its own page; the list says no more than the name.
            if request.POST.get("seen", said := shown(row)) != said:
                self.message_user(request, f"{row.name} was changed meanwhile. It would now run {said}", messages.ERROR)
                continue
            try:
                is_queued = survive(partial(queue_now, row), row.name)
            except (LookupError, TypeError, ValueError) as error:
                self.message_user(request, f"{row.name} cannot be run: {error}", messages.ERROR)
                continue
            if not is_queued:
                self.message_user(request, f"The broker does not answer, {row} was not queued.", messages.ERROR)
                return
            self.message_user(request, f"{row.name} is queued; its schedule stays as it is.", messages.SUCCESS)


class TimesAdmin(ActingAdmin, BaseScheduleAdmin):
    """Times that tasks share: changing them changes each of these tasks."""

    form = EditedForm

    def save_model(self, request: HttpRequest, times: Any, *args: Any) -> None:
        super().save_model(request, times, *args)
        times.periodictask_set.update(date_changed=timezone.now())


admin.site.unregister([CrontabSchedule, IntervalSchedule])


@admin.register(CrontabSchedule)
class CrontabScheduleAdmin(TimesAdmin, BaseCrontabScheduleAdmin):
    @admin.display(description="In words")
    def human_readable(self, times: CrontabSchedule) -> str:
        return in_words(times)


@admin.register(IntervalSchedule)
class IntervalScheduleAdmin(TimesAdmin, BaseIntervalScheduleAdmin):
    pass


def shown(row: PeriodicTask) -> str:
    """Say what somebody agrees to who runs it now."""
    return f"{row.task}, with {row.args or '[]'} and {row.kwargs or '{}'}, on the queue {row.queue or 'of its task'}."


def queue_now(row: PeriodicTask) -> None:
    """Queue the task as beat does; raises `LookupError` for an unknown task or queue."""
    app.loader.import_default_modules()
    if row.task not in app.tasks:
        raise LookupError(f"no worker knows a task {row.task}")
    options = {"queue": row.queue} if row.queue else {}
    app.tasks[row.task].apply_async(
        json.loads(row.args or "[]"),
        json.loads(row.kwargs or "{}"),
        headers={"periodic_task_name": row.name},
        **options,
    )


def told(moment: datetime, zone: tzinfo | None = None) -> str:
    """Format the moment in local time with its zone: on one night of the year 02:30 occurs twice."""
    return f"{timezone.localtime(moment, zone):%a %d %b %Y, %H:%M:%S %Z}"


def told_there(moment: datetime, row: PeriodicTask) -> str:
    zone = row.crontab.timezone if row.crontab else None
    return f" ({told(moment, zone)})" if zone and str(zone) != settings.TIME_ZONE else ""
