"""All data that the shop keeps about a person, as JSON, in constant memory."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from allauth.account.models import EmailAddress
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import F, Prefetch, Q

from accounts.models import AccountMail, User
from orders.models import BasketLine, Digest, Order, OrderEvent, OrderItem, Payment

from .models import Pack, Report

# Orders read at once, with their items, payments and events.
CHUNK = 200
Rows = Iterable[Mapping[str, Any]]


def write(person: User, target: BinaryIO, progress: Callable[[int], None]) -> int:
    """Write the person's data to a binary file; return the number of rows in all sections."""
    sections: dict[str, Rows] = {
        "account": [account(person)],
        "email_addresses": EmailAddress.objects.filter(user=person).order_by("pk").values("email", "verified"),
        "orders": orders(person),
        "basket": BasketLine.objects.filter(basket__person=person)
        .order_by("pk")
        .values("quantity", name=F("product__name"), used_at=F("basket__used_at"))
        .iterator(),
        "mails": mails(person),
        "notices": notices(person),
        "api_tokens": person.api_tokens.order_by("pk").values("name", "created_at", "used_at").iterator(),
        "digests": Digest.objects.filter(person=person).order_by("week").values("week", "mail_sent_at").iterator(),
        "reports": reports(person),
        "packs": packs(person),
        "report_schedules": person.report_schedules.order_by("name").values("name").iterator(),
    }
    total = 0
    for number, (name, rows) in enumerate(sections.items()):
        target.write(f'{"," if number else "{"}\n"{name}": ['.encode())
        with closed_at_once(rows):
            for count, row in enumerate(rows):
                target.write(b",\n" if count else b"\n")
                target.write(json.dumps(row, cls=DjangoJSONEncoder, ensure_ascii=False).encode())
                progress(total := total + 1)
        target.write(b"]")
    target.write(b"\n}\n")
    return total


@contextmanager
def closed_at_once(rows: Rows) -> Iterator[None]:
    """Close the cursor of these rows at the end of the block, also after an exception.

    An abandoned cursor is closed by the garbage collector, perhaps within another transaction, which breaks that one.
    """
    try:
        yield
    finally:
        if isinstance(rows, Generator):
            rows.close()


def account(person: User) -> dict[str, Any]:
    return {
        "email": person.email,
        "name": person.name,
        "registered_at": person.date_joined,
        "last_login_at": person.last_login,
        "wants_digest": person.wants_digest,
        "welcome_mailed_at": person.mail_sent_at,
    }


def orders(person: User) -> Iterator[dict[str, Any]]:
    rows = Order.objects.of(person).order_by("created_at", "pk")
    whole = rows.prefetch_related(
        Prefetch("items", OrderItem.objects.order_by("pk")),
        Prefetch("payments", Payment.objects.order_by("attempt")),
        Prefetch("events", OrderEvent.objects.order_by("created_at", "pk")),
    )
    return (order(row) for row in whole.iterator(chunk_size=CHUNK))


def order(row: Order) -> dict[str, Any]:
    return {
        "reference": row.reference,
        "status": row.get_status_display(),
        "reason": row.reason,
        "total": row.total,
        "currency": row.currency,
        "placed_at": row.created_at,
        "completed_at": row.completed_at,
        "confirmation_mailed_at": row.mail_sent_at,
        "items": [{"name": i.name, "price": i.price, "quantity": i.quantity} for i in row.items.all()],
        "payments": [payment(p) for p in row.payments.all()],
        # The text that the customer sees; the details are notes of our staff.
        "time_line": [{"at": e.created_at, "what": e.title} for e in row.events.all()],
    }


def payment(row: Payment) -> dict[str, Any]:
    return {
        "attempt": row.attempt,
        "card": row.card_label,
        "amount": row.amount,
        "currency": row.currency,
        "status": row.get_status_display(),
        "reason": row.reason,
        "started_at": row.created_at,
    }


def mails(person: User) -> Rows:
    """Mails about the account, without their text, which contains one-time links."""
    # Rows from before mails had a foreign key to the person are found by the address.
    own = Q(user=person) | Q(user=None, to__iexact=person.email, created_at__gte=person.date_joined)
    rows = AccountMail.objects.filter(own).order_by("pk")
    return rows.values("to", "subject", "created_at", "mail_sent_at").iterator()


def notices(person: User) -> Rows:
    rows = person.notifications.order_by("created_at", "pk")
    return rows.values("subject", "message", "url", "created_at", "mail_sent_at").iterator()


def reports(person: User) -> Iterator[dict[str, Any]]:
    rows = Report.objects.of(person).order_by("created_at", "pk")
    return (
        {"title": row.title, "status": row.get_status_display(), "asked_for_at": row.created_at}
        for row in rows.iterator()
    )


def packs(person: User) -> Iterator[dict[str, Any]]:
    rows = Pack.objects.of(person).order_by("created_at", "pk")
    return ({"title": row.title, "status": row.get_status_display(), "asked_for_at": row.created_at} for row in rows)
