from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from accounts import services
from accounts.admin import UserAdmin as BaseUserAdmin
from accounts.models import User
from myproject.web.admin import ReadOnlyAdmin

from . import erasure, tasks
from .models import Pack, Report, ReportSchedule

DELETE = (
    "Delete these accounts? The people are forgotten and signed out at once; their orders and payments stay, "
    "but without their names. This cannot be undone."
)


@admin.register(Report)
class ReportAdmin(ReadOnlyAdmin):
    task_argument = "report_id"
    list_display = [
        "title",
        "format",
        "requested_by",
        "pill",
        "row_count",
        "size",
        "created_at",
        "error",
    ]
    list_filter = ["kind", "format", "status", "created_at"]
    list_select_related = ["requested_by"]
    search_fields = ["id", "requested_by__email"]
    ordering = ["-created_at"]
    # Private to its owner: only the report's page serves it.
    exclude = ["file"]


@admin.register(ReportSchedule)
class ReportScheduleAdmin(ReadOnlyAdmin):
    task_argument = "schedule_id"
    list_display = ["name", "kind", "format", "period", "periodic_task", "last_due_at", "made_by"]
    list_filter = ["kind", "format", "period"]
    list_select_related = ["periodic_task", "made_by"]
    search_fields = ["id", "name"]
    ordering = ["name"]


@admin.register(Pack)
class PackAdmin(ReadOnlyAdmin):
    task_argument = "pack_id"
    list_display = ["title", "requested_by", "pill", "missing_count", "size", "created_at", "finished_at", "error"]
    list_filter = ["status", "created_at"]
    list_select_related = ["requested_by"]
    search_fields = ["id", "requested_by__email"]
    ordering = ["-created_at"]
    # Private to its owner, as a report's is.
    exclude = ["file"]


admin.site.unregister(User)


@admin.register(User)
class UserAdmin(BaseUserAdmin):
    """Adds deletion, since only this app knows all data of an account."""

    actions = [*BaseUserAdmin.actions, "delete_accounts"]

    @admin.action(description="Delete accounts: forget the person, keep the books", permissions=["delete"])
    @transaction.atomic
    def delete_accounts(self, request: HttpRequest, people: QuerySet[User]) -> HttpResponse | None:
        if self.are_too_many(request, people) or self.refused(request, people):
            return None
        services.hold_administrators()
        if page := self.ask(
            request, User.objects.filter(pk__in=people), erasure.shown, title="Delete accounts", question=DELETE
        ):
            return page
        for person in people.order_by("pk"):
            self._delete_account(request, person)
        return None

    def _delete_account(self, request: HttpRequest, person: User) -> None:
        try:
            closed = erasure.close_account(person)
        except erasure.Unsettled as error:
            self.message_user(request, f"{person} stays: {error}", messages.ERROR)
            return
        tasks.erase_account.delay_on_commit(user_id=person.pk)
        self.message_user(request, f"{person} is {'deleted' if closed else 'gone already'}.")
