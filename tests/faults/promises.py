"""What the shop promises, checked for each order against its rows, the sandbox's own ledger and its mailbox."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from django.db.models import Sum

from orders.models import OPEN, Order, OrderItem, PaymentStatus, Product, Status
from tests.shop import Shop

ENDED = [status for status in Status.values if status not in OPEN]
WITH_STOCK = [Status.PROCESSING, Status.COMPLETED]


def unfinished(order_ids: Collection[int]) -> int:
    """Count the orders that have not ended, or whose confirmation is still owed."""
    orders = Order.objects.filter(pk__in=order_ids)
    return orders.open().count() + orders.filter(mail_due_at__isnull=False, mail_sent_at=None).count()


def broken_promises(shop: Shop, order_ids: Collection[int]) -> dict[int, list[str]]:
    """Return for each order what does not hold; an empty dictionary is what we want to see."""
    charges, mails = charges_by_order(shop), mails_by_order(shop, order_ids)
    orders = Order.objects.filter(pk__in=order_ids).prefetch_related("events", "payments").order_by("pk")
    found = {order.pk: list(faults_of(order, charges[order.reference], mails[order.reference])) for order in orders}
    lost = {pk: ["the order is gone"] for pk in set(order_ids) - found.keys()}
    return {pk: faults for pk, faults in (found | lost).items() if faults}


def faults_of(order: Order, charges: list[Any], mails: list[str]) -> Iterable[str]:
    kinds = Counter(event.kind for event in order.events.all())
    terminal = sum(kinds[kind] for kind in ENDED)
    if order.status not in ENDED or (terminal != 1 and not kinds["pending"]):
        yield f"ends: {order.status}, {terminal} terminal events"
    yield from faults_of_money(order, charges)
    due = int(order.status == Status.COMPLETED)
    if kinds["confirmed"] != due or bool(order.mail_sent_at) != bool(due):
        yield f"{kinds['confirmed']} confirmations recorded"
    if len(set(mails)) != due:
        yield f"{len(set(mails))} different mails"


def faults_of_money(order: Order, charges: list[Any]) -> Iterable[str]:
    paid = [(int(order.total * 100), order.currency.lower())] if order.status == Status.COMPLETED else []
    if [(charge["amount"], charge["currency"]) for charge in charges] != paid:
        yield f"{order.status}, but charged {[charge['amount'] for charge in charges]}"
    known = [p.provider_id for p in order.payments.all() if p.status == PaymentStatus.SUCCEEDED]
    if known != [charge["id"] for charge in charges]:
        yield "the payment's row and the provider's ledger differ"


def charges_by_order(shop: Shop) -> dict[str, list[Any]]:
    charges = defaultdict(list)
    for charge in shop.sandbox("/ledger.json")["charges"]:
        if charge["status"] == "succeeded":
            charges[charge["order"]].append(charge)
    return charges


def mails_by_order(shop: Shop, order_ids: Collection[int]) -> dict[str, list[str]]:
    """Return the Message-IDs that the mailbox holds for each order."""
    mails = defaultdict(list)
    people = Order.objects.filter(pk__in=order_ids).order_by("customer").values_list("customer__email", flat=True)
    for email in people.distinct():
        for mail in shop.sandbox(f"/mail.json?to={email}"):
            reference = mail["message_id"].removeprefix("<order-").partition("@")[0]
            mails[reference].append(mail["message_id"])
    return mails


def stock_differences(stocked: dict[int, int]) -> list[str]:
    """Compare what each product had at the start with what is left, sold and held."""
    sold = OrderItem.objects.filter(product__in=stocked, order__status__in=WITH_STOCK).order_by()
    taken = dict(sold.values_list("product").annotate(Sum("quantity")))
    products = Product.objects.filter(pk__in=stocked).order_by("pk")
    return [
        f"{p}: {stocked[p.pk]} = {p.stock} left + {taken.get(p.pk, 0)} sold or held"
        for p in products
        if p.stock + taken.get(p.pk, 0) != stocked[p.pk]
    ]
