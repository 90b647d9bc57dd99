import re
from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django_celery_results.admin import TaskResultAdmin as BaseTaskResultAdmin
from django_celery_results.models import TaskResult

admin.site.site_header = admin.site.site_title = "Lantern & Loom"

# The pages of the rows that tasks are given the id of.
PAGES = {
    "order_id": "admin:orders_order_change",
    "report_id": "admin:reports_report_change",
    "import_id": "admin:orders_productimport_change",
    "user_id": "admin:accounts_user_change",
    "mail_id": "admin:accounts_accountmail_change",
    "sync_id": "admin:orders_inventorysync_change",
}
ARGUMENT = re.compile(r"'(order_id|report_id|import_id|user_id|mail_id|sync_id)': '?([\w-]+)")


class ReadOnlyAdmin(admin.ModelAdmin):
    """Shows rows that only the shop itself may write, so that nobody puts one into a state the rules forbid."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class OwesMailAdmin(admin.ModelAdmin):
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


admin.site.unregister(TaskResult)


@admin.register(TaskResult)
class TaskResultAdmin(ReadOnlyAdmin, BaseTaskResultAdmin):
    list_display = ["task_name", "subject", "status", "date_done", "worker", "task_id"]
    list_display_links = ["task_name"]
    list_filter = ["status", "date_done", "task_name", "worker"]
    search_fields = ["task_id", "task_name", "task_kwargs"]

    @admin.display(description="Works on")
    def subject(self, result: TaskResult) -> str:
        """Link to the row whose id the task was given."""
        found = ARGUMENT.search(result.task_kwargs or "")
        if found is None:
            return ""
        name, pk = found.groups()
        return format_html('<a href="{}">{} {}</a>', reverse(PAGES[name], args=[pk]), name.removesuffix("_id"), pk[:8])
