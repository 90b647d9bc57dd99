from django.contrib import admin

from myproject.alerting.models import Alert
from myproject.web.admin import ReadOnlyAdmin


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    task_argument = "alert_id"
    list_display = ["subject", "message", "count", "last_at", "sent_at", "due_at", "error"]
    list_filter = ["last_at"]
    search_fields = ["cause", "subject", "message"]
    ordering = ["-last_at"]
