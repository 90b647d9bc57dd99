"""The demo's catalogue and its history of orders, with all that follows from them."""

import csv
import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, transaction
from django.utils import timezone

from accounts import emails as account_emails
from accounts.demo import CUSTOMER, SUPPORT
from accounts.models import Notification, User
from durable.mail import SERVER
from myproject.demo import Past, Told, mail_of

from .. import digests, emails, import_services, money
from ..models import (
    Card,
    Digest,
    InventorySync,
    Order,
    Payment,
    PaymentStatus,
    Product,
    ProductImport,
    Skip,
    SyncStatus,
    actor,
    week_of,
)
from ..payments import CHARGE, REFUND
from ..services import place_order
from . import rhythm, statements

CATALOGUE = Path(__file__).parents[1] / "catalogue.csv"
DECLINED = "Your card was declined."
FLAGGED = "Open for more than a day. Look for its charge at the provider before you queue it again."
UNANSWERED = "The payment provider did not answer (APIConnectionError)."
WORKER = "worker@lantern"
# The last order of the history ends before anybody looks; the ledger knows so many orders, and the mail server keeps
# mails for a month, as they do.
REST, TOLD, MAILED = timedelta(minutes=20), 2_000, timedelta(days=30)
WEEKS = 10
# Orders whose rows are written at once.
BATCH = 100_000
MISTAKES = [
    "LAM-900,Lamp without a price,Lighting,,5,",
    "LAM-901,Lamp from nowhere,,12.00,5,",
    "LAM-902,,Lighting,12.00,5,",
    "LAM-903,Half a lamp,Lighting,12.00,2.5,",
    "LAM-904,Free lamp,Lighting,0,5,",
    "LIT-001,Harbour Storm Lantern,Lighting,68.00,34,twice",
]


def fill() -> None:
    """Create what is missing of the catalogue."""
    with CATALOGUE.open(newline="") as rows:
        products = [product_of(row) for row in csv.DictReader(rows)]
    slugs = Product.objects.slugs_for({product.sku: product.name for product in products})
    for product in products:
        product.slug = slugs[product.sku]
    Product.objects.bulk_create(products, ignore_conflicts=True)


def product_of(row: dict[str, Any]) -> Product:
    price = round(Decimal(row["price"]), money.places(settings.CURRENCY))
    return Product(**row | {"price": price})


def remember(past: Past) -> Told:
    """Write the history of orders where there is none, and leave one order that a worker is about to process."""
    casey, support = (User.objects.filter(email=email).first() for email in (CUSTOMER, SUPPORT))
    if casey is None or support is None or Order.objects.exists():
        return {}
    # New goods, for the last digest, are those that come first by name.
    Product.objects.update(created_at=past.ago(days=past.days + 30))
    newest = Product.objects.order_by("name").values("pk")[:3]
    Product.objects.filter(pk__in=newest).update(created_at=past.ago(days=9))
    write_orders(past, casey, support)
    write_syncs(past)
    mails = [*confirmations(past), *write_digests(past), *write_import(past)]
    told = {"charges": list(charges()), "refunds": list(refunds()), "movements": list(deliveries()), "mails": mails}
    leave_an_order()
    return told


@transaction.atomic
def write_orders(past: Past, casey: User, support: User) -> None:
    with connection.cursor() as cursor:
        # The rows are made from each other, and of people and goods that cannot go meanwhile, so their foreign keys are
        # right; to check them takes longer than to write.
        cursor.execute(statements.UNCHECKED)
    hours = rhythm.hours(past.now - REST, past.days, past.orders)
    others = User.objects.filter(is_staff=False, is_active=True).exclude(pk=casey.pk).order_by("pk")
    values = {
        "now": past.now,
        "name": past.name,
        "offset": int(past.name[:9], 16),
        "starts": [hour.start for hour in hours],
        "before": [hour.before for hour in hours],
        "upto": [hour.upto for hour in hours],
        "casey": casey.pk,
        # The first ones buy most.
        "people": [*others.values_list("pk", flat=True), casey.pk],
        "support": actor(support),
        "worker": WORKER,
        "currency": settings.CURRENCY,
        "card": Card.VISA,
        "card_slow": Card.SLOW,
        "card_declined": Card.DECLINED,
        "declined": DECLINED,
        "flagged": FLAGGED,
        "unanswered": UNANSWERED,
        "charge": CHARGE,
        "refund": REFUND,
        "mail": SERVER,
    }
    with connection.cursor() as cursor:
        for statement in statements.WHOLE:
            cursor.execute(statement, values)
        with without_indexes(cursor) if past.orders > BATCH else nullcontext():
            for done in range(0, past.orders, BATCH):
                for statement in statements.EACH:
                    cursor.execute(statement, values | {"done": done, "batch": BATCH})
                past.show(min(done + BATCH, past.orders))
        cursor.execute("ANALYZE")


@contextmanager
def without_indexes(cursor: Any) -> Iterator[None]:
    """Make the indexes of the orders' tables anew at the end: to keep them up with so many rows takes longer."""
    cursor.execute(statements.INDEXES)
    indexes = cursor.fetchall()
    for drop, _ in indexes:
        cursor.execute(drop)
    yield
    for _, make in indexes:
        cursor.execute(make)


def write_syncs(past: Past) -> None:
    """Write the runs of the last days; the next one reads all levels, since none of these has an ETag."""
    ended = [past.ago(hours=hours) for hours in range(72, 0, -6)]
    InventorySync.objects.bulk_create(
        InventorySync(
            status=SyncStatus.SUCCEEDED if number % 4 == 0 else SyncStatus.UNCHANGED,
            attempts=1,
            seen=0 if number % 4 else Product.objects.count(),
            changed=0 if number % 4 else 7 + number,
            due_at=None,
            created_at=moment - timedelta(milliseconds=340),
            finished_at=moment,
        )
        for number, moment in enumerate(ended)
    )


def write_digests(past: Past) -> Iterator[dict[str, Any]]:
    """Write the digests of the last weeks, and yield the mails of the last ones."""
    readers = User.objects.filter(wants_digest=True, is_active=True).order_by("pk")
    newest = week_of(past.now)
    for ago in range(WEEKS, -1, -1):
        week = newest - timedelta(weeks=ago)
        sent = timezone.make_aware(datetime.combine(week, time(9, 0, 3)))
        if sent > past.now:
            continue
        orders = digests.orders_of([reader.pk for reader in readers], week)
        products = digests.new_products(week)
        rows = [Digest(person=reader, week=week) for reader in readers]
        for row in rows:
            is_told = bool(products) or row.person_id in orders
            row.mail_due_at, row.mail_sent_at = (sent, sent) if is_told else (None, None)
            row.skip_reason = "" if is_told else Skip.NOTHING
        for row in Digest.objects.bulk_create(rows):
            if ago < 4 and row.mail_sent_at:
                yield mail_of(emails.digest(row, orders.get(row.person_id, []), products), sent)


def write_import(past: Past) -> Iterator[dict[str, Any]]:
    """Import a file with some mistakes, which changes no product, as the warehouse's person did some days ago."""
    person = User.objects.filter(email="warehouse@example.com").first()
    if person is None:
        return
    file = SimpleUploadedFile("spring-catalogue.csv", file_with_mistakes().encode())
    begun = import_services.start_import(person, file, uuid.uuid4())
    import_services.run_import(begun.pk)
    ended = past.ago(days=4, hours=2)
    done = {"created_at": ended - timedelta(seconds=2), "finished_at": ended, "claimed_by": ""}
    ProductImport.objects.filter(pk=begun.pk).update(**done)
    yield from notices_sent(person, ended)


def notices_sent(person: User, moment: datetime) -> Iterator[dict[str, Any]]:
    """Date a person's unsent notices back to the moment, as sent, and yield their mails."""
    owed = Notification.objects.filter(person=person, mail_sent_at=None).select_related("person")
    notices = list(owed)
    owed.update(created_at=moment, mail_due_at=moment, mail_sent_at=moment)
    for notice in notices:
        yield mail_of(account_emails.notification(notice), moment)


def file_with_mistakes() -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["sku", "name", "category", "price", "stock", "description"])
    for product in Product.objects.order_by("pk")[:24]:
        rows.writerow([product.sku, product.name, product.category, product.price, product.stock, product.description])
    return text.getvalue() + "\n".join(MISTAKES) + "\n"


def leave_an_order() -> None:
    """Place an order that nobody queued: the sweep finds it, and the first visitor sees it being processed."""
    person = User.objects.filter(is_staff=False, is_active=True).exclude(email=CUSTOMER).order_by("pk").first()
    product = Product.objects.on_sale().filter(stock__gt=0).order_by("pk").first()
    if person and product:
        place_order(person, {product: 1}, Card.VISA, uuid.uuid4())


# --- What the counterparts remember ---


def newest_orders() -> Any:
    return Order.objects.order_by("-created_at").values("pk")[:TOLD]


def charges() -> Iterator[dict[str, Any]]:
    """Yield the charges of the history, successful and declined, oldest first."""
    known = [PaymentStatus.SUCCEEDED, PaymentStatus.REFUNDED, PaymentStatus.DECLINED]
    paid = Payment.objects.filter(order__in=newest_orders(), status__in=known).select_related("order")
    for payment in paid.order_by("created_at", "pk"):
        declined = payment.status == PaymentStatus.DECLINED
        yield {
            "id": payment.provider_id or f"pi_{payment.key.hex[:24]}",
            "charge": f"ch_{payment.key.hex[:24]}",
            "amount": money.to_units(payment.amount, payment.currency),
            "currency": payment.currency.lower(),
            "payment_method": payment.card,
            "metadata": metadata_of(payment),
            "decline_code": "generic_decline" if declined else "",
            "created": int(payment.created_at.timestamp()),
        }


def refunds() -> Iterator[dict[str, Any]]:
    given = Payment.objects.filter(order__in=newest_orders(), status=PaymentStatus.REFUNDED).select_related("order")
    for payment in given.order_by("refund_wanted_at", "pk"):
        yield {
            "id": payment.refund_id,
            "payment_intent": payment.provider_id,
            "amount": money.to_units(payment.amount, payment.currency),
            "metadata": metadata_of(payment),
            "created": int(cast(datetime, payment.refund_wanted_at).timestamp()),
        }


def metadata_of(payment: Payment) -> dict[str, str]:
    return {"order": payment.order.reference, "attempt": str(payment.attempt)}


def deliveries() -> Iterator[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(statements.DELIVERIES)
        for sku, week, units in cursor.fetchall():
            yield {"sku": sku, "units": units, "reason": "arrived", "moved": week.timestamp()}


def confirmations(past: Past) -> Iterator[dict[str, Any]]:
    sent = Order.objects.filter(pk__in=newest_orders(), mail_sent_at__gt=past.now - MAILED).select_related("customer")
    for order in sent.order_by("mail_sent_at"):
        yield mail_of(emails.confirmation(order), cast(datetime, order.mail_sent_at))
