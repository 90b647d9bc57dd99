from django.contrib import admin

from myproject.web.admin import OwesMailAdmin, ReadOnlyAdmin

from . import tasks
from .models import Invoice


@admin.register(Invoice)
class InvoiceAdmin(OwesMailAdmin, ReadOnlyAdmin):
    task_argument = "invoice_id"
    list_display = ["order", "created_at", "mail_due_at", "mail_sent_at", "mail_error"]
    list_select_related = ["order"]
    ordering = ["-pk"]

    def queue_mail(self, row: Invoice) -> None:
        tasks.send_invoice.delay_on_commit(invoice_id=row.pk)
