from datetime import timedelta

from django.db import connection, models
from django.utils import timezone

from durable.mail import MailQuerySet, OwesMail

# In one statement, so that it does not matter how many orders there are; ON CONFLICT makes twice once.
PLAN = """
INSERT INTO invoices_invoice (order_id, created_at, mail_due_at, mail_error)
SELECT id, %(now)s, %(now)s, '' FROM orders_order WHERE status = 'completed' AND completed_at >= %(since)s
ON CONFLICT (order_id) DO NOTHING
"""
# How long nothing of this may run, and still each order gets its invoice.
LOOKS_BACK = timedelta(days=7)


class InvoiceQuerySet(MailQuerySet):
    def plan(self) -> int:
        """Owe an invoice for each order that was completed lately and has none; return how many are new."""
        now = timezone.now()
        with connection.cursor() as cursor:
            cursor.execute(PLAN, {"now": now, "since": now - LOOKS_BACK})
            return cursor.rowcount


class Invoice(OwesMail):
    """The invoice of a completed order; the mail owed brings it."""

    order = models.OneToOneField("orders.Order", on_delete=models.CASCADE, related_name="invoice")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = InvoiceQuerySet.as_manager()

    def __str__(self) -> str:
        return f"Invoice {self.pk}"
