"""What happened to an order."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Self

from django.contrib.auth.models import AnonymousUser
from django.contrib.postgres.indexes import BrinIndex
from django.db import connection, models
from django.db.models import F, Func, Q, Value
from django.utils import timezone

from accounts.models import User
from durable.errors import readable
from durable.leases import current_task_id
from myproject.celery import worker_name


class Kind(models.TextChoices):
    """What can happen to an order, as the customer reads it."""

    PLACED = "placed", "Order placed"
    PENDING = "pending", "Waiting to be processed again"
    PROCESSING = "processing", "Stock reserved, charging your card"
    RETRY = "retry", "The payment provider did not answer, trying again"
    COMPLETED = "completed", "Payment received, order completed"
    REJECTED = "rejected", "Order rejected"
    PAYMENT_FAILED = "payment_failed", "Payment failed"
    CANCELLED = "cancelled", "Order cancelled"
    REFUNDED = "refunded", "Payment refunded"
    CONFIRMED = "confirmed", "Confirmation mailed"
    REQUEUED = "nudged", "Queued again"
    INTERRUPTED = "interrupted", "Interrupted, trying again"
    REPLAYED = "replayed", "Started again by our staff"
    REFUND_WANTED = "refund_wanted", "Refund asked for"
    FLAGGED = "flagged", "Our staff is looking into it"
    SETTLED = "settled", "Our staff has looked into it"


# Events that are useful only while an order is open; the others are kept as long as the order.
NOISE = [Kind.RETRY, Kind.REQUEUED, Kind.INTERRUPTED]
# What happens to almost every order.
USUAL = [Kind.PLACED, Kind.PROCESSING, Kind.COMPLETED, Kind.CONFIRMED]


def actor(person: User | AnonymousUser) -> str:
    """Name the person with their key, by which `OrderEventQuerySet.rename` finds the event after a change of name."""
    return f"{person} (#{person.pk})"


# The current recorder of events outside of tasks.
_WEBHOOK = ContextVar("webhook", default="")


@contextmanager
def recorded_by(webhook: str) -> Iterator[None]:
    """Record this webhook of the provider as the origin of events in the block."""
    token = _WEBHOOK.set(webhook)
    try:
        yield
    finally:
        _WEBHOOK.reset(token)


def origin() -> str:
    return (_WEBHOOK.get() or current_task_id())[:40]


class OrderEventQuerySet(models.QuerySet[Any]):
    def noise_before(self, moment: datetime) -> Self:
        return self.filter(kind__in=NOISE, created_at__lt=moment)

    def newest(self) -> Self:
        """The latest events of all orders, with their orders."""
        return self.select_related("order").order_by("-pk")

    def refunds_since(self, moment: datetime) -> Self:
        return self.filter(kind=Kind.REFUNDED, created_at__gte=moment)

    def record(self, order_ids: Iterable[int], kind: Kind, *, detail: str = "") -> None:
        """Record one event for each order, in one statement; call it in the transaction of the change."""
        if not (keys := list(order_ids)):
            return
        sql, values = self.insertion("unnest(%s::bigint[]) AS id", kind, detail)
        with connection.cursor() as cursor:
            cursor.execute(sql, [*values, keys])

    def insertion(self, orders: str, kind: Kind, detail: str = "") -> tuple[str, list[Any]]:
        """Return the SQL, and its parameters, that records one event for each `id` of these orders."""
        each = OrderEvent(kind=kind, detail=readable(detail)[:300])
        sql = "INSERT INTO orders_orderevent (order_id, kind, detail, task_id, worker, created_at)"
        values = [each.kind, each.detail, each.task_id, each.worker, each.created_at]
        return f"{sql} SELECT id, %s, %s, %s, %s, %s FROM {orders}", values  # noqa: S608

    def rename(self, pk: int, names: Iterable[str], to: str) -> int:
        """Call the person who did something by another name; return in how many events. Reads all of these.

        Older events have no key: there they are found by these names.
        """
        who = "|".join([rf".* \(#{pk}\)", *map(re.escape, names)])
        pattern, by = f"by ({who})$", Value(f"by {to}")
        done = self.filter(detail__regex=pattern)
        return done.update(detail=Func(F("detail"), Value(pattern), by, function="regexp_replace"))


class OrderEvent(models.Model):
    """One line of an order's timeline."""

    order = models.ForeignKey("orders.Order", on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=14, choices=Kind.choices)
    detail = models.CharField(max_length=300, blank=True, help_text="For staff; the customer reads the kind's label.")
    # Filled in automatically, so that callers need not know where they run.
    task_id = models.CharField(
        max_length=40, blank=True, default=origin, help_text="Or the id of the provider's webhook."
    )
    worker = models.CharField(max_length=120, blank=True, default=worker_name)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = OrderEventQuerySet.as_manager()

    class Meta:
        indexes = [
            # Only of what will be deleted or is looked for, so that the events of a smooth order do not pay for it.
            models.Index(fields=["kind", "created_at"], name="orderevent_unusual", condition=~Q(kind__in=USUAL)),
            BrinIndex(fields=["created_at"], name="orderevent_recorded", pages_per_range=32, autosummarize=True),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def title(self) -> str:
        return self.get_kind_display()

    @property
    def origin(self) -> str:
        """The origin of this line: a task, or a webhook of the payment provider."""
        if not self.task_id:
            return ""
        return f"{'webhook' if self.task_id.startswith('evt_') else 'task'} {self.task_id}"
