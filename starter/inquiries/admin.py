from django.contrib import admin
from django.http import HttpRequest

from durable.mail import MailQuerySet
from myproject.web.admin import OwesMailAdmin, ReadOnlyAdmin

from . import tasks
from .models import Inquiry


@admin.register(Inquiry)
class InquiryAdmin(OwesMailAdmin, ReadOnlyAdmin):
    task_argument = "inquiry_id"
    list_display = ["pk", "person", "status", "attempts", "created_at", "mail_sent_at"]
    list_filter = ["status"]
    actions = [*OwesMailAdmin.actions, "queue_again"]

    def queue_mail(self, row: Inquiry) -> None:
        tasks.send_answer.delay_on_commit(inquiry_id=row.pk)

    @admin.action(description="Queue again what is overdue")
    def queue_again(self, request: HttpRequest, rows: MailQuerySet) -> None:
        due = list(rows.due())
        for row in due:
            tasks.answer_inquiry.delay_on_commit(inquiry_id=row.pk)
        self.message_user(request, f"{len(due)} were queued again.")
