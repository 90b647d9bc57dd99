from django.contrib import admin

from myproject.admin import ReadOnlyAdmin

from .models import Report


@admin.register(Report)
class ReportAdmin(ReadOnlyAdmin):
    list_display = ["title", "requested_by", "status", "row_count", "size", "created_at", "finished_at", "error"]
    list_filter = ["kind", "status", "created_at"]
    list_select_related = ["requested_by"]
    search_fields = ["id", "requested_by__email"]
    ordering = ["-created_at"]
    # The file is its owner's: it is served by the report's own page.
    exclude = ["file"]
