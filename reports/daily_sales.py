"""Daily sales: counted again from the orders, a whole day at a time, so that counting twice changes nothing."""

import logging
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, F, Max, Min, Model, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncDate
from django.utils import timezone

from orders.models import Order, OrderEvent, OrderItem, Status

from .models import DailyProductSales, DailySales, SalesCount

log = logging.getLogger(__name__)

# An order carries the time at which its worker wrote it, but is visible only after the commit, and clocks may differ:
# each run looks back this much further than the start of the last one. A sale or refund must commit within this time.
OVERLAP = timedelta(minutes=15)
# Days that a rebuild counts in one transaction.
CHUNK = timedelta(days=31)
SUMS = ["orders", "units", "revenue", "refunded_orders", "refunded_units", "refunds"]
# One statement, so that a half-counted day is never visible; unchanged rows are not written.
COUNT = """
WITH counted ({keys}, {sums}) AS MATERIALIZED ({select}),
gone AS (DELETE FROM {table} WHERE day BETWEEN %s AND %s AND ({keys}) NOT IN (SELECT {keys} FROM counted))
INSERT INTO {table} AS known ({keys}, {sums}) SELECT {keys}, {sums} FROM counted
ON CONFLICT ({keys}) DO UPDATE SET ({sums}) = ({new}) WHERE ({old}) IS DISTINCT FROM ({new})
"""


def update() -> int:
    """Count the days on which something was sold or refunded since the last run; return how many."""
    now, as_of = timezone.now(), SalesCount.freshness()
    if as_of is None:
        return sum((last - first).days + 1 for first, last in rebuild())
    days = changed_days(as_of - OVERLAP)
    for day in days:
        count(day, day)
    SalesCount.mark_counted(now)
    log.info("Daily sales: counted %s", ", ".join(map(str, days)) or "nothing")
    return len(days)


def rebuild(since: date | None = None) -> Iterator[tuple[date, date]]:
    """Count all days, or those from `since` on, in chunks; yield each chunk's first and last day."""
    now, today = timezone.now(), timezone.localdate()
    # Before the first sale there is nothing to count, in two thousand years of it either.
    first = max(since or date.min, first_day())
    while first <= today:
        last = min(first + CHUNK - timedelta(days=1), today)
        count(first, last)
        yield first, last
        first = last + timedelta(days=1)
    if since is None or since <= first_day():
        SalesCount.mark_counted(now)


def first_day() -> date:
    """Return the first day with a sale, or today if there was none."""
    sold = Order.objects.filter(completed_at__isnull=False).order_by("completed_at").values_list("completed_at")
    days = [timezone.localdate(moment) for (moment,) in sold[:1]]
    days += DailySales.objects.order_by("day").values_list("day", flat=True)[:1]
    return min([*days, timezone.localdate()])


def changed_days(since: datetime) -> list[date]:
    """Return, in order, the days whose sales have changed: by a new sale, or by a refund of an old one."""
    refunded = OrderEvent.objects.refunds_since(since).filter(order__completed_at__isnull=False)
    days = set(Order.objects.completed_since(since).values_list(TruncDate("completed_at"), flat=True).distinct())
    days |= set(refunded.values_list(TruncDate("order__completed_at"), flat=True).distinct())
    return sorted(days)


@transaction.atomic
def count(first: date, last: date) -> None:
    """Count these days, first and last included."""
    # A count that starts before another one and ends after it would restore old numbers. Each statement sees what was
    # committed before it starts, so a count starts only while no other one runs.
    SalesCount.lock()
    items = sold_items(first, last)
    put(DailySales, ["day"], items.values("day").annotate(**sums()), first, last)
    put(DailyProductSales, ["day", "product_id"], items.values("day", "product").annotate(**sums()), first, last)


def sold_items(first: date, last: date) -> QuerySet[Any]:
    """Return the items of orders completed on these days, including orders that were refunded later. Makes a query."""
    # Most keys of their orders lie close together. Told between which, PostgreSQL reads a part of the items, not all.
    # It is asked for the number of orders, too: for the least key alone it would go through all orders from the first.
    orders = Order.objects.filter(sold_on(first, last))
    keys = orders.aggregate(Count("pk"), least=Min("pk", default=0), greatest=Max("pk", default=0))
    items = OrderItem.objects.filter(
        sold_on(first, last, "order__"), order__gte=keys["least"], order__lte=keys["greatest"]
    )
    return items.annotate(day=TruncDate("order__completed_at"))


def sold_on(first: date, last: date, prefix: str = "") -> Q:
    """Return the condition for orders completed on these days; `prefix` is the path to the order."""
    conditions = {
        "status__in": [Status.COMPLETED, Status.REFUNDED],
        "completed_at__gte": midnight(first),
        "completed_at__lt": midnight(last + timedelta(days=1)),
        "currency": settings.CURRENCY,
    }
    return Q(**{prefix + name: value for name, value in conditions.items()})


def sums() -> dict[str, Any]:
    refunded, amount = Q(order__status=Status.REFUNDED), F("price") * F("quantity")
    return {
        "orders": Count("order", distinct=True),
        "units": Sum("quantity"),
        "revenue": Sum(amount),
        "refunded_orders": Count("order", distinct=True, filter=refunded),
        "refunded_units": Coalesce(Sum("quantity", filter=refunded), 0),
        "refunds": Coalesce(Sum(amount, filter=refunded), Decimal()),
    }


def put(model: type[Model], keys: Sequence[str], rows: QuerySet[Any, Any], first: date, last: date) -> None:
    """Replace the rows of these days with the new counts."""
    select, params = rows.order_by().query.sql_with_params()
    statement = COUNT.format(
        select=select,
        table=model._meta.db_table,
        keys=", ".join(keys),
        sums=", ".join(SUMS),
        new=", ".join(f"EXCLUDED.{name}" for name in SUMS),
        old=", ".join(f"known.{name}" for name in SUMS),
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [*params, first, last])


def midnight(day: date) -> datetime:
    """Return the start of the day in the shop's time zone."""
    return timezone.make_aware(datetime.combine(day, time.min))
