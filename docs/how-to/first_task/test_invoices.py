"""What could happen to an invoice, and what becomes of it."""

import io
from typing import Any
from unittest.mock import patch

import pytest
from django.core import mail as outbox
from django.utils import timezone
from pypdf import PdfReader

from durable import mail
from durable.errors import TemporaryError
from invoices import pdf, tasks
from invoices.models import Invoice
from orders.models import Order, Status
from tests.broker import Broker
from tests.factories import place_order, put
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db


def completed() -> Order:
    return put(place_order(), Status.COMPLETED, completed_at=timezone.now())


def owed() -> Invoice:
    order = completed()
    Invoice.objects.plan()
    return Invoice.objects.get(order=order)


def send(invoice: Invoice) -> None:
    tasks.send_invoice.apply(kwargs={"invoice_id": invoice.pk})


def test_invoice_says_what_was_bought() -> None:
    order = completed()

    text = PdfReader(io.BytesIO(pdf.invoice(order))).pages[0].extract_text()

    assert order.reference in text
    assert order.items.get().name in text


def test_each_completed_order_owes_one_invoice_however_often_it_is_planned() -> None:
    order = completed()
    place_order()

    planned = [Invoice.objects.plan() for _ in range(2)]

    assert planned == [1, 0]
    assert Invoice.objects.get().order == order


@pytest.mark.proves("invoices.tasks.send_invoice", "twice", page="admin:invoices_invoice_changelist")
def test_invoice_twice_is_once() -> None:
    invoice = owed()

    for _ in range(2):
        send(invoice)

    [message] = outbox.outbox
    assert message.subject == f"Your invoice for order {invoice.order.reference}"
    assert [name for name, *_ in message.attachments] == [f"invoice-{invoice.order.reference}.pdf"]


def test_invoice_waits_when_the_mail_server_is_busy() -> None:
    invoice = owed()

    with patch.object(mail, "send", side_effect=TemporaryError("421 busy")):
        send(invoice)

    invoice.refresh_from_db()
    assert (invoice.mail_sent_at, invoice.mail_error) == (None, "421 busy")


@pytest.mark.django_db(transaction=True)
@pytest.mark.proves("invoices.tasks.check_invoices", "twice")
def test_lost_message_is_sent_again_by_the_sweep(broker: Broker) -> None:
    completed()

    for _ in range(2):
        tasks.check_invoices()

    assert Invoice.objects.count() == 1
    assert {name for _, name, _ in broker.messages()} == {"invoices.tasks.send_invoice"}


@pytest.mark.proves("invoices.tasks.send_invoice", "worker")
@pytest.mark.proves("invoices.tasks.check_invoices", "worker")
def test_worker_mails_the_invoice_of_an_order_that_it_has_completed(shop: Shop) -> None:
    order = place_order()

    def received() -> list[Any]:
        mails: list[Any] = shop.sandbox(f"/mail.json?to={order.customer.email}")
        return [each for each in mails if "Your invoice" in each["subject"]]

    wait_for(received, "the invoice")
    wait_for(lambda: Invoice.objects.get().mail_sent_at, "the record")

    assert len(received()) == 1
