"""The shop's figures on the dashboard, read from daily sales and small indexes at a cost independent of all orders."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from celery import states
from django.conf import settings
from django.db.models import Count, F, Max, Sum
from django.db.models.functions import TruncMonth
from django.utils import timezone
from django.utils.safestring import SafeString
from django_celery_results.models import TaskResult

from myproject.alerting.models import Alert
from orders import money
from orders.models import OPEN, UNSOLD, Order, OrderEvent, Status

from . import charts
from .models import DailyProductSales, DailySales, SalesCount

DAYS = 90
RECENT = timedelta(days=30)
BEST = 8
MONTHS = 12
FAILURES = 6
FEED = 8
# Sales are counted every minute; after so long, beat or a worker is down.
STALE_AFTER = timedelta(minutes=5)
NOTHING: dict[str, Any] = {
    "orders": 0,
    "units": 0,
    "revenue": Decimal(),
    "refunded_orders": 0,
    "refunded_units": 0,
    "refunds": Decimal(),
}


class Chart(NamedTuple):
    """A chart, and the table behind it."""

    title: str
    chart: SafeString
    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Freshness(NamedTuple):
    """When the daily sales were last counted; `as_of` is None if never."""

    as_of: datetime | None

    @property
    def is_stale(self) -> bool:
        return self.as_of is None or self.as_of < timezone.now() - STALE_AFTER


class State(NamedTuple):
    status: Status
    orders: int

    @property
    def label(self) -> str:
        return str(self.status.label)


def say(amount: Decimal) -> str:
    return money.text(amount, settings.CURRENCY)


# --- The shop ---


def of_the_shop() -> dict[str, Any]:
    """Return everything that the dashboard shows to staff."""
    days = sales_per_day(timezone.localdate())
    return {
        "fresh": Freshness(SalesCount.freshness()),
        "sales": sales_chart(days),
        "currency": settings.CURRENCY,
        "today": days[-1],
        "week_ago": days[-8],
        "best_sellers": best_sellers(),
        **now(),
        "unsold_states": unsold_states(),
        "sold_states": sold_states(days[-RECENT.days :]),
        "failures": failures() if settings.RESULTS_IN_DATABASE else (),
        "results_in_database": settings.RESULTS_IN_DATABASE,
        "alerts": Alert.objects.filter(last_at__gte=a_day_ago()).order_by("-last_at")[:FAILURES],
    }


def now() -> dict[str, Any]:
    """Return what changes while one looks; two small queries."""
    counts = Order.objects.count_unfinished()
    return {
        "open_states": [State(status, counts[status]) for status in OPEN],
        "flagged": counts["flagged"],
        "feed": OrderEvent.objects.newest()[:FEED],
    }


def sales_per_day(today: date) -> list[DailySales]:
    """Return the last 90 days in order, ending with today; days without sales have zeros."""
    days = [today - timedelta(days=ago) for ago in reversed(range(DAYS))]
    found = DailySales.objects.in_bulk(days)
    return [found.get(day) or DailySales(day=day, **NOTHING) for day in days]


def sales_chart(days: Sequence[DailySales]) -> Chart:
    title = f"Sales per day, the last {len(days)} days"
    labels, values = [f"{day.day:%-d %b}" for day in days], [day.net for day in days]
    rows = [
        (f"{day.day:%a %-d %b %Y}", day.orders, day.units, say(day.revenue), say(day.refunds), say(day.net))
        for day in reversed(days)
    ]
    headings = ["Day", "Orders", "Units", "Sales", "Refunds", "After refunds"]
    extras = charts.Extras(unit=settings.CURRENCY, last="today", compares=True)
    return Chart(title, charts.bars(title, labels, values, say=say, extras=extras), headings, rows)


def best_sellers() -> Any:
    """Return the products with the most units sold in the last 30 days, less refunds."""
    recent = DailyProductSales.objects.filter(day__gt=timezone.localdate() - RECENT)
    named = recent.values(name=F("product__name"), slug=F("product__slug"), category=F("product__category"))
    kept = named.annotate(sold=Sum(F("units") - F("refunded_units")), earned=Sum(F("revenue") - F("refunds")))
    return kept.filter(sold__gt=0).order_by("-sold", "-earned", "slug")[:BEST]


def unsold_states() -> list[State]:
    """Count the orders of the last 30 days that ended without a sale, as they are now."""
    counts = Order.objects.unsold_since(timezone.now() - RECENT).by_status()
    return [State(status, counts.get(status, 0)) for status in UNSOLD]


def sold_states(days: Sequence[DailySales]) -> list[State]:
    """Add up the sales of these days, as of when they were counted."""
    refunded = sum(day.refunded_orders for day in days)
    completed = sum(day.orders for day in days) - refunded
    return [State(Status.COMPLETED, completed), State(Status.REFUNDED, refunded)]


def failures() -> Any:
    """Return the tasks that failed permanently in the last day, how often, and when last."""
    failed = TaskResult.objects.filter(status=states.FAILURE, date_done__gte=a_day_ago()).values("task_name")
    return failed.annotate(times=Count("pk"), last_at=Max("date_done")).order_by("-times", "task_name")[:FAILURES]


def a_day_ago() -> datetime:
    return timezone.now() - timedelta(days=1)


# --- A customer ---


class Spending(NamedTuple):
    """`chart` is None if nothing was spent in the last twelve months."""

    total: Decimal
    chart: Chart | None

    @property
    def currency(self) -> str:
        return settings.CURRENCY


def spending(customer: object) -> Spending:
    """Return what a customer has spent, by month; reads this customer's orders only."""
    completed = Order.objects.of(customer).filter(status=Status.COMPLETED, currency=settings.CURRENCY)
    by_month = completed.annotate(month=TruncMonth("completed_at")).order_by("month").values_list("month")
    spent = {timezone.localdate(month): total for month, total in by_month.annotate(Sum("total"))}
    months = last_months(timezone.localdate())
    values = [spent.get(month, Decimal()) for month in months]
    return Spending(sum(spent.values(), Decimal()), spending_chart(months, values) if any(values) else None)


def spending_chart(months: Sequence[date], values: Sequence[Decimal]) -> Chart:
    title = "Your spending per month"
    rows = [(f"{month:%B %Y}", say(value)) for month, value in zip(months, values, strict=True)]
    extras = charts.Extras(unit=settings.CURRENCY, last="this month", compares=True)
    drawn = charts.bars(title, [f"{month:%b %y}" for month in months], values, say=say, extras=extras)
    return Chart(title, drawn, ["Month", "Spent"], rows[::-1])


def last_months(today: date) -> list[date]:
    """Return the first days of the last twelve months, ending with this one."""
    month = today.year * 12 + today.month - 1
    return [date(number // 12, number % 12 + 1, 1) for number in range(month - MONTHS + 1, month + 1)]
