import json
import re
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import Any

from allauth.mfa.admin import AuthenticatorAdmin as BaseAuthenticatorAdmin
from allauth.mfa.models import Authenticator
from celery import Task
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
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
from myproject.alerting.models import Alert
from myproject.celery import app
from myproject.monitoring.beat import next_runs

admin.site.site_header = admin.site.site_title = "Lantern & Loom"

# The pages of the rows that tasks are given the id of.
PAGES = {
    "order_id": "admin:orders_order_change",
    "report_id": "admin:reports_report_change",
    "schedule_id": "admin:reports_reportschedule_change",
    "pack_id": "admin:reports_pack_change",
    "import_id": "admin:orders_productimport_change",
    "user_id": "admin:accounts_user_change",
    "mail_id": "admin:accounts_accountmail_change",
    "sync_id": "admin:orders_inventorysync_change",
    "alert_id": "admin:myproject_alert_change",
    "product_id": "admin:orders_product_change",
}
ARGUMENT = re.compile(rf"'({'|'.join(PAGES)})': '?([\w-]+)")
QUEUES = [(queue.name, queue.name) for queue in settings.CELERY_TASK_QUEUES]
# Beat looks at its schedules every few seconds; what is late by more than this has nobody who looks.
OVERDUE = timedelta(minutes=2)
# Below DATA_UPLOAD_MAX_NUMBER_FIELDS, since the page that asks for confirmation sends all of them back.
MOST_CONFIRMED = 500


class ActingAdmin(admin.ModelAdmin):
    """Offers actions that name no permission to those who may change such rows; Django, to whoever may look at them."""

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        # Django's own answer: a page on which nobody may edit a row still has its actions.
        may_change = admin.ModelAdmin.has_change_permission(self, request)
        actions: dict[str, Any] = super().get_actions(request)
        return {name: row for name, row in actions.items() if may_change or hasattr(row[0], "allowed_permissions")}

    def are_too_many(self, request: HttpRequest, rows: QuerySet[Any]) -> bool:
        """Refuse what nobody reads before confirming it; a form of all of them would be refused as well."""
        if rows.count() <= MOST_CONFIRMED:
            return False
        self.message_user(request, f"Please choose at most {MOST_CONFIRMED} at a time.", messages.ERROR)
        return True


class ReadOnlyAdmin(ActingAdmin):
    """Shows rows that only the shop itself may write, so that nobody puts one into a state the rules forbid."""

    # There are many of them, and their number is not worth a second count.
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


admin.site.unregister(Authenticator)


@admin.register(Authenticator)
class AuthenticatorAdmin(BaseAuthenticatorAdmin):
    """To delete it for whoever has lost a phone; its secret is shown to nobody, and nothing can be changed."""

    fields = ["user", "type", "created_at", "last_used_at"]

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class OwesMailAdmin(ActingAdmin):
    """Shows what became of a row's mail; staff may have it sent again."""

    readonly_fields = ["mail_due_at", "mail_sent_at", "mail_error"]
    actions = ["send_again"]

    def queue_mail(self, row: Any) -> None:
        raise NotImplementedError

    @admin.action(description="Send the mail again, where it has failed")
    def send_again(self, request: HttpRequest, rows: Any) -> None:
        owed = [row for row in rows.mail_failed().order_by("pk") if row.mark_mail_due()]
        for row in owed:
            self.queue_mail(row)
        self.message_user(request, f"{len(owed)} will be sent again; of others no mail has failed.")


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ["subject", "message", "count", "last_at", "sent_at", "due_at", "error"]
    list_filter = ["last_at"]
    search_fields = ["cause", "subject", "message"]
    ordering = ["-last_at"]


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
        found = ARGUMENT.search(result.task_kwargs or "")
        if found is None:
            return ""
        name, pk = found.groups()
        return format_html('<a href="{}">{} {}</a>', reverse(PAGES[name], args=[pk]), name.removesuffix("_id"), pk[:8])


admin.site.unregister(PeriodicTask)


class PeriodicTaskForm(BasePeriodicTaskForm):
    """Refuses what beat could not read, or no worker would run."""

    queue = forms.ChoiceField(required=False, choices=[("", "As its task says"), *QUEUES])

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
    # The extension's form has an inline script, which our Content-Security-Policy refuses.
    change_form_template = "admin/change_form.html"
    list_display = ["name", "enabled", "when", "last_run", "next_run", "task"]
    list_filter = ()
    date_hierarchy = None
    ordering = ["name"]
    actions = ["enable_tasks", "disable_tasks", "run_tasks"]
    readonly_fields = ["last_run_at", "crontab_translation", "preview"]
    # The route follows from the queue; an exchange that nobody reads would swallow the messages.
    fieldsets = [
        (None, {"fields": ["name", "regtask", "task", "enabled", "description"]}),
        ("Schedule", {"fields": ["interval", "crontab", "crontab_translation", "solar", "clocked"]}),
        ("When", {"fields": ["start_time", "expires", "one_off", "last_run_at", "preview"]}),
        ("Arguments", {"fields": ["args", "kwargs"]}),
        ("Message", {"fields": ["queue", "expire_seconds", "priority", "headers"]}),
    ]

    @admin.display(description="Schedule")
    def when(self, row: PeriodicTask) -> str:
        return str(row.crontab.human_readable) if row.crontab else str(row.scheduler).capitalize()

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
        return row.crontab.human_readable if row.crontab else ""

    @admin.action(description="Enable selected tasks")
    def enable_tasks(self, request: HttpRequest, rows: QuerySet[PeriodicTask]) -> None:
        # As its form does: what was due while it was disabled is not made up for.
        rows.filter(enabled=False).update(date_changed=timezone.now())
        super().enable_tasks(request, rows)

    @admin.action(description="Run now, beside the schedule")
    def run_tasks(self, request: HttpRequest, rows: QuerySet[PeriodicTask]) -> None:
        for row in rows.order_by("name"):
            try:
                is_queued = survive(partial(queue_now, row), row.name)
            except (LookupError, TypeError, ValueError) as error:
                self.message_user(request, f"{row.name} cannot be run: {error}", messages.ERROR)
                continue
            if not is_queued:
                self.message_user(request, f"The broker does not answer, {row} was not queued.", messages.ERROR)
                return
            self.message_user(request, f"{row.name} is queued; its schedule stays as it is.", messages.SUCCESS)


class TimesAdmin(BaseScheduleAdmin):
    """Times that tasks share: to change them is a change of each of these tasks."""

    def save_model(self, request: HttpRequest, times: Any, *args: Any) -> None:
        super().save_model(request, times, *args)
        times.periodictask_set.update(date_changed=timezone.now())


admin.site.unregister([CrontabSchedule, IntervalSchedule])


@admin.register(CrontabSchedule)
class CrontabScheduleAdmin(TimesAdmin, BaseCrontabScheduleAdmin):
    pass


@admin.register(IntervalSchedule)
class IntervalScheduleAdmin(TimesAdmin, BaseIntervalScheduleAdmin):
    pass


def queue_now(row: PeriodicTask) -> None:
    """Queue the task as beat does; raises `LookupError` when there is no such task or queue."""
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
    """Say the moment in local time, with the name of that time: on one night of the year 02:30 is there twice."""
    return f"{timezone.localtime(moment, zone):%a %d %b %Y, %H:%M:%S %Z}"


def told_there(moment: datetime, row: PeriodicTask) -> str:
    zone = row.crontab.timezone if row.crontab else None
    return f" ({told(moment, zone)})" if zone and str(zone) != settings.TIME_ZONE else ""
