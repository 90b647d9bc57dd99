from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from kombu.exceptions import OperationalError as BrokerError

from myproject.alerting import dead_letters
from myproject.alerting.models import Alert, DeadLetter
from myproject.web.admin import ReadOnlyAdmin


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    task_argument = "alert_id"
    list_display = ["subject", "message", "count", "last_at", "sent_at", "error"]
    list_filter = ["last_at"]
    search_fields = ["cause", "subject", "message"]
    ordering = ["-last_at"]


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    """Shows what it says of itself; the message itself is a download, since it may be anything."""

    list_display = ["kind", "queue", "task", "reason", "size", "count", "first_at", "last_at"]
    list_filter = ["kind", "queue", "last_at"]
    search_fields = ["task", "reason"]
    ordering = ["-last_at"]
    exclude = ["raw"]
    readonly_fields = ["download"]
    actions = ["send_again"]

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return admin.ModelAdmin.has_delete_permission(self, request, obj)

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(self.download_view)
        own = path("<int:pk>/download/", page, name="myproject_deadletter_download")
        return [own, *super().get_urls()]

    @admin.display(description="Message")
    def download(self, letter: DeadLetter) -> str:
        address = reverse("admin:myproject_deadletter_download", args=[letter.pk])
        return format_html('<a href="{}">Download {} bytes</a>', address, len(letter.raw))

    def download_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        letter = get_object_or_404(DeadLetter, pk=pk)
        if not self.has_view_permission(request, letter):
            raise PermissionDenied
        headers = {"Content-Disposition": f'attachment; filename="dead-letter-{pk}.bin"'}
        return HttpResponse(bytes(letter.raw), content_type="application/octet-stream", headers=headers)

    def has_resend_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("myproject.resend_deadletter")

    @admin.action(description="Send again, where the task was unknown", permissions=["resend"])
    def send_again(self, request: HttpRequest, rows: QuerySet[DeadLetter]) -> None:
        sent = 0
        try:
            for letter in rows.order_by("pk"):
                sent += letter.can_be_sent_again and dead_letters.send_again(letter)
        except (BrokerError, OSError) as error:
            self.message_user(request, f"The broker does not take them: {error}", messages.ERROR)
        self.message_user(request, f"{sent} sent again; the others are no tasks.")
