from django.core.mail import EmailMultiAlternatives

from myproject.web import mails

from . import pdf
from .models import Invoice


def invoice(row: Invoice) -> EmailMultiAlternatives:
    order = row.order
    message = mails.render(
        "invoices/email/invoice", order.customer.mail_address, f"invoice-{order.reference}", {"order": order}
    )
    message.attach(f"invoice-{order.reference}.pdf", pdf.invoice(order), "application/pdf")
    return message
