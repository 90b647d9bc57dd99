"""The weekly digest: planned for all in one statement, written and sent a chunk of people at a time."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date

from django.db.models import Count, Prefetch, Window, prefetch_related_objects
from django.db.models.functions import RowNumber

from durable import mail
from durable.mail import MAIL

from . import emails
from .models import Digest, Order, OrderItem, Product, Skip, days_before

log = logging.getLogger(__name__)

# People that one message is for: large enough that 100,000 are some hundred messages, small enough that a slow mail
# server gets through within the task's limits.
CHUNK = 200
# Mails recorded in one statement: a machine that loses power repeats at most so many.
RECORDED_AT_ONCE = 50
# Of each the newest, and a link to the rest: one person's thousand orders must not fill the worker's memory.
ORDERS_SHOWN = 10
PRODUCTS_SHOWN = 12


def plan(week: date) -> int:
    """Create this week's digests; return how many are new.

    Older unsent digests are dropped: a person should not get two at once.
    """
    late = Digest.objects.filter(week__lt=week).mail_due().skip(Skip.LATE)
    planned = Digest.objects.plan(week)
    log.info("Digests of %s: %s planned, %s older ones dropped", week, planned, late)
    return planned


def send_chunk(week: date) -> int:
    """Claim up to `CHUNK` digests of the week and send them over one connection; return how many were sent.

    Makes as many queries for one person as for all of them. Raises `Disconnected` when the server takes nothing now.
    """
    claimed: list[Digest] = Digest.objects.filter(week=week).select_related("person").claim_mail(limit=CHUNK)
    if not claimed:
        return 0
    readers = those(claimed, lambda row: row.person.is_active and row.person.wants_digest, Skip.UNWANTED)
    prefetch_related_objects(readers, "person__emailaddress_set")
    products, orders = new_products(week), orders_of([row.person_id for row in readers], week)
    told = those(readers, lambda row: bool(products) or row.person_id in orders, Skip.NOTHING)
    return mail.deliver(
        told, lambda row: emails.digest(row, orders.get(row.person_id, []), products), at_once=RECORDED_AT_ONCE
    )


def those(rows: Iterable[Digest], condition: Callable[[Digest], bool], otherwise: Skip) -> list[Digest]:
    """Return the rows for which the condition is true; skip the others in one statement."""
    good = {row.pk: row for row in rows if condition(row)}
    Digest.objects.all().held([row for row in rows if row.pk not in good], MAIL).skip(otherwise)
    return list(good.values())


def orders_of(people: Iterable[int], week: date) -> dict[int, list[Order]]:
    """Return what each of these people ordered, newest first; an order's `in_week` also counts those left out."""
    placed = Order.objects.filter(customer__in=people).placed_between(*days_before(week))
    numbered = placed.annotate(
        place=Window(RowNumber(), partition_by="customer", order_by=["-created_at", "-pk"]),
        in_week=Window(Count("pk"), partition_by="customer"),
    )
    items = Prefetch("items", OrderItem.objects.order_by("pk"))
    found: dict[int, list[Order]] = defaultdict(list)
    for order in numbered.filter(place__lte=ORDERS_SHOWN).order_by("customer", "place").prefetch_related(items):
        found[order.customer_id].append(order)
    return found


def new_products(week: date) -> list[Product]:
    added = Product.objects.on_sale().added_between(*days_before(week))
    return list(added.order_by("-created_at", "-pk")[:PRODUCTS_SHOWN])
