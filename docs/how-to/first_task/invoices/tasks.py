from celery import shared_task

from durable import mail
from durable.sweeps import Sweep, sweep

from . import emails
from .models import Invoice
from .schedules import SCHEDULES


@shared_task(soft_time_limit=50, time_limit=60, ignore_result=True)
def send_invoice(*, invoice_id: int) -> None:
    """Mail an invoice, and others that wait. Safe to repeat: each is claimed, and remembers that it was sent."""
    mail.deliver(Invoice.objects.select_related("order__customer").claim_mail(invoice_id), emails.invoice)


@sweep(SCHEDULES["Check invoices"])
def check_invoices() -> list[Sweep]:
    """Owe an invoice for each completed order, and queue what is owed. Safe to repeat: an order has one invoice."""
    Invoice.objects.plan()
    return [Sweep(Invoice.objects.mail_due().order_by("pk"), send_invoice, "invoice_id", limit=10, at_once=mail.BATCH)]
