"""The tour of the README as a list that ticks itself off, for the strip that development shows."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from accounts.development import SINCE
from accounts.models import User
from durable.trace import label_of
from myproject.traces.models import Run
from orders.models import InventorySync, Kind, Order, OrderEvent, PaymentStatus, ProductImport
from orders.tasks import process_order

from .models import Report

# A run is written at its end, a moment after its order is completed.
RUN_IS_WRITTEN = timedelta(seconds=5)


class Item(NamedTuple):
    title: str
    url: str
    done: bool


def _ordered(person: User, since: datetime) -> bool:
    return Order.objects.of(person).filter(created_at__gte=since).exists()


def _declined(person: User, since: datetime) -> bool:
    recent = Order.objects.of(person).filter(payments__created_at__gte=since)
    return recent.filter(payments__status=PaymentStatus.DECLINED).exists()


def _reported(person: User, since: datetime) -> bool:
    return Report.objects.of(person).filter(created_at__gte=since).exists()


def _imported(person: User, since: datetime) -> bool:
    return ProductImport.objects.filter(requested_by=person, created_at__gte=since).exists()


def _synced(person: User, since: datetime) -> bool:
    return InventorySync.objects.filter(created_at__gte=since).exists()


def _rescued(person: User, since: datetime) -> bool:
    kinds = [Kind.INTERRUPTED, Kind.RETRY, Kind.REQUEUED]
    events = OrderEvent.objects.noise_before(timezone.now()).filter(created_at__gte=since, kind__in=kinds)
    return events.exists() or _outlived_its_worker(since)


def _outlived_its_worker(since: datetime) -> bool:
    """Tell whether the provider's webhook completed an order whose worker was killed: no run of a worker claimed it."""
    completed = Order.objects.filter(created_at__gte=since, completed_at__lt=timezone.now() - RUN_IS_WRITTEN)
    runs = Run.objects.filter(task=process_order.name, started_at__gte=since)
    claimed = {label for about in runs.values_list("about", flat=True) for label in about}
    return any(label_of(order) not in claimed for order in completed)


Check = Callable[[User, datetime], bool]
FOR_ALL: list[tuple[str, str, Check]] = [
    ("Order something", "orders:catalogue", _ordered),
    ("Have a card declined", "orders:basket", _declined),
    ("Kill a worker while the slow card is charged", "orders:how-it-works", _rescued),
]
FOR_STAFF: list[tuple[str, str, Check]] = [
    ("Ask for a report", "reports:list", _reported),
    ("Import a file with mistakes", "orders:imports", _imported),
    ("Ask the warehouse", "orders:syncs", _synced),
]


def checklist(request: HttpRequest) -> list[Item]:
    """Return what there is to try, and what of it this visitor has done since the first visit."""
    since = request.session.setdefault(SINCE, timezone.now().timestamp())
    moment = datetime.fromtimestamp(since, timezone.get_current_timezone())
    person: Any = request.user
    items = [Item("Sign in", reverse("account_login"), person.is_authenticated)]
    wanted = FOR_ALL + (FOR_STAFF if getattr(person, "is_staff", False) else [])
    for title, name, is_done in wanted:
        items.append(Item(title, reverse(name), person.is_authenticated and is_done(person, moment)))
    return items
