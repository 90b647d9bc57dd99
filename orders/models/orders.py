"""What was ordered, and the one table of what an order may become."""

import logging
import secrets
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Self, cast

from django.conf import settings
from django.core.exceptions import EmptyResultSet
from django.db import connection, models, transaction
from django.db.models import Count, Q
from django.db.models.sql import UpdateQuery
from django.urls import reverse
from django.utils import timezone

from durable.mail import MailQuerySet, OwesMail
from myproject.alerting.alerts import alert

from .events import Kind, OrderEvent
from .products import Product

log = logging.getLogger(__name__)

# Without I, L, O, U: a reference is read aloud on the telephone (Crockford's base 32).
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_reference() -> str:
    letters = "".join(secrets.choice(ALPHABET) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"


class Status(models.TextChoices):
    PENDING = "pending", "Pending"
    PROCESSING = "processing", "Processing"
    COMPLETED = "completed", "Completed"
    REJECTED = "rejected", "Rejected"
    PAYMENT_FAILED = "payment_failed", "Payment failed"
    CANCELLED = "cancelled", "Cancelled"
    REFUNDED = "refunded", "Refunded"


# From where an order may come to each status. Every change of status goes through `OrderQuerySet.move`, which
# obeys this table.
MAY_BECOME = {
    Status.PENDING: [Status.PAYMENT_FAILED, Status.REJECTED],
    Status.PROCESSING: [Status.PENDING],
    Status.COMPLETED: [Status.PROCESSING],
    Status.REJECTED: [Status.PENDING],
    Status.PAYMENT_FAILED: [Status.PROCESSING],
    Status.CANCELLED: [Status.PENDING, Status.PAYMENT_FAILED],
    # Also from *processing*: the provider may have charged a wrong amount, or be faster with its refund than we.
    Status.REFUNDED: [Status.COMPLETED, Status.PROCESSING],
}
OPEN = [Status.PENDING, Status.PROCESSING]
# What ended without a sale: few, beside the completed ones.
UNSOLD = [Status.REJECTED, Status.PAYMENT_FAILED, Status.CANCELLED]
# The units of such an order are not in the stock: `reserve` took them, and nothing gave them back.
HOLDS_STOCK = [Status.PROCESSING, Status.COMPLETED]


class OrderQuerySet(MailQuerySet):
    def of(self, customer: object) -> Self:
        return self.filter(customer=customer)

    def placed_between(self, start: datetime, end: datetime) -> Self:
        return self.filter(created_at__gte=start, created_at__lt=end)

    def open(self) -> Self:
        return self.filter(status__in=OPEN)

    def unsold_since(self, moment: datetime) -> Self:
        """Orders placed since then that ended without a sale."""
        return self.filter(status__in=UNSOLD, created_at__gte=moment)

    def completed_since(self, moment: datetime) -> Self:
        """Orders that were completed since then, whatever has become of them."""
        return self.filter(completed_at__gte=moment)

    def by_status(self) -> dict[str, int]:
        """Return how many there are of each status. Makes a query."""
        return dict(self.order_by("status").values_list("status").annotate(Count("pk")))

    def left_behind(self) -> Self:
        """Open orders that nobody works on although their time has come."""
        return self.open().filter(due_at__lte=timezone.now())

    def young(self) -> Self:
        """What the machine may still end by itself: not flagged, and not older than the provider's memory of keys."""
        return self.filter(flagged_at=None, opened_at__gt=remembered_since())

    def old(self) -> Self:
        """What waits for a person to be told of it: not flagged, and older than the provider's memory of keys."""
        return self.filter(flagged_at=None, opened_at__lte=remembered_since())

    def unsettled(self) -> Self:
        """Orders that are not over for their customer: open, in a person's hands, or with a refund under way."""
        refunding = Q(payments__refund_due_at__isnull=False)
        return self.filter(Q(status__in=OPEN) | Q(flagged_at__isnull=False) | refunding).distinct()

    def flagged(self) -> Self:
        return self.filter(flagged_at__isnull=False)

    def flag(self, reason: str, *, task_id: str = "") -> list[str]:
        """Hand these orders to a person, each once for the same reason, and alert once for all; return who is new."""
        reason = reason[:200]
        with transaction.atomic():
            fresh = self.exclude(flagged_at__isnull=False, flag_reason=reason).select_for_update().order_by("pk")
            flagged = {order.pk: order.reference for order in fresh.only("pk", "reference")}
            everybody = self.model._base_manager.filter(pk__in=flagged)
            everybody.update(flagged_at=timezone.now(), flag_reason=reason)
            OrderEvent.objects.record(flagged, Kind.FLAGGED, detail=reason, task_id=task_id)
            if flagged:
                some = ", ".join(list(flagged.values())[:20])
                message = f"{len(flagged)} ({some}): {reason}"
                transaction.on_commit(lambda: alert("Orders that need a person", message), robust=True)
        for reference in flagged.values():
            log.warning("Order %s needs a person: %s", reference, reason, extra={"order": reference})
        return list(flagged.values())

    def mail_failed(self) -> Self:
        """Only where the customer still waits for it: who got the money back needs no confirmation."""
        return super().mail_failed().filter(status=Status.COMPLETED)

    def mark_mails_sent(self, ids: Iterable[object], task_id: str = "") -> int:
        with transaction.atomic():
            unsent = self.filter(pk__in=ids, mail_sent_at=None)
            sent = unsent.update_returning("id", mail_sent_at=timezone.now(), mail_error="")
            OrderEvent.objects.record([pk for (pk,) in sent], Kind.CONFIRMED, task_id=task_id)
        return len(sent)

    def unflag(self, detail: str = "") -> int:
        """Take the flags off; return how many there were."""
        with transaction.atomic():
            ids = list(self.flagged().select_for_update().order_by("pk").values_list("pk", flat=True))
            self.model._base_manager.filter(pk__in=ids).update(flagged_at=None, flag_reason="")
            OrderEvent.objects.record(ids, Kind.SETTLED, detail=detail)
        return len(ids)

    def mark_nudged(self, detail: str) -> dict[int, str]:
        """Note that staff wants these orders processed; return their references by their keys.

        One that is old may be charged for another day: a person has looked for its charge at the provider.
        """
        with transaction.atomic():
            nudged = dict(self.select_for_update().order_by("pk").values_list("pk", "reference"))
            OrderEvent.objects.record(nudged, Kind.NUDGED, detail=detail)
            # A younger one stays as old as its key is.
            old = Order.objects.open().filter(pk__in=nudged, opened_at__lte=remembered_since())
            old.update(opened_at=timezone.now())
        return nudged

    def free(self, claimant: str) -> Self:
        """Open orders that the claimant may take.

        No one claimed them, or their time has come, or the claimant, a task that is tried again, comes back.
        """
        return self.open().filter(Q(claimed_by="") | Q(due_at__lte=timezone.now()) | Q(claimed_by=claimant))

    def claim(self, claimant: str, first: int, limit: int) -> list[int]:
        """Take order `first` and up to `limit` others that wait, for `settings.ORDER_LEASE`; return their ids.

        Call it in a transaction, which holds their locks until it ends.
        """
        rows = self.free(claimant).select_for_update(skip_locked=True)
        others = rows.young().exclude(pk=first).order_by("due_at")
        # Its message may be from before a long pause. The key of a pending order was never sent.
        harmless = Q(status=Status.PENDING) | Q(opened_at__gt=remembered_since())
        ids = list(rows.filter(harmless, pk=first).values_list("pk", flat=True))
        ids += others.values_list("pk", flat=True)[: limit - 1]
        self.filter(pk__in=ids).update(claimed_by=claimant, due_at=first_look())
        return ids

    def move(self, to: Status, reason: str = "", *, task_id: str = "", **fields: object) -> list[int]:
        """Move each of these orders that may become `to`, with its event, in one transaction; return their ids.

        An order that somebody else moved first is left out: whoever finds it in the answer has won it. More than
        one must have been locked before, in the order of their keys.
        """
        if to not in OPEN:
            fields |= {"claimed_by": "", "due_at": None}
        with transaction.atomic(savepoint=False):
            movable = self.filter(status__in=MAY_BECOME[to])
            moved = dict(movable.update_returning("id", "reference", status=to, reason=reason[:200], **fields))
            OrderEvent.objects.record(moved, Kind(to.value), detail=reason, task_id=task_id)
        for reference in moved.values():
            log.info("Order %s is %s %s", reference, to.value, reason, extra={"order": reference})
        return list(moved)

    def update_returning(self, *columns: str, **fields: object) -> list[tuple[Any, ...]]:
        """Like `update`, but return these columns of each row that it changed."""
        query = cast(UpdateQuery, self.query.chain(UpdateQuery))
        query.add_update_values(fields)
        try:
            sql, params = query.get_compiler(self.db).as_sql()
        except EmptyResultSet:
            return []
        with connection.cursor() as cursor:
            cursor.execute(f"{sql} RETURNING {', '.join(columns)}", params)
            return cursor.fetchall()


class Order(OwesMail):
    """One customer's order; the mail owed is the confirmation."""

    owed_since = "completed_at"

    reference = models.CharField(max_length=9, unique=True, default=new_reference, editable=False)
    customer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="orders")
    token = models.UUIDField(help_text="From the checkout form: a form that is sent twice orders once.")
    status = models.CharField(max_length=14, choices=Status.choices, default=Status.PENDING)
    reason = models.CharField(max_length=200, blank=True)
    total = models.DecimalField(max_digits=11, decimal_places=2)
    currency = models.CharField(max_length=3, default=settings.CURRENCY)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    completed_at = models.DateTimeField(null=True, blank=True)
    claimed_by = models.CharField(max_length=40, blank=True, help_text="The task that works on it, if any.")
    due_at = models.DateTimeField(null=True, blank=True, help_text="When the sweep takes it up if nobody did before.")
    # Or when staff wanted it processed although it was old.
    opened_at = models.DateTimeField(default=timezone.now, help_text="When it last became pending.")
    flagged_at = models.DateTimeField("needs a person since", null=True, blank=True)
    flag_reason = models.CharField(max_length=200, blank=True)

    objects = OrderQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["customer", "token"], name="order_once_per_form"),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="order_status_known"),
            models.CheckConstraint(condition=Q(total__gt=0), name="order_total_positive"),
            models.CheckConstraint(
                condition=Q(status__in=OPEN, due_at__isnull=False) | (~Q(status__in=OPEN) & Q(due_at=None)),
                name="order_due_while_open",
            ),
            models.CheckConstraint(
                condition=~Q(status=Status.COMPLETED) | Q(completed_at__isnull=False), name="order_completed_has_time"
            ),
        ]
        indexes = [
            *OwesMail.Meta.indexes,
            # The sweep and the claims read only what is open, however many orders are finished.
            models.Index(fields=["due_at"], name="order_open", condition=Q(status__in=OPEN)),
            models.Index(fields=["customer", "-created_at", "-id"], name="order_of_customer"),
            models.Index(fields=["completed_at"], name="order_completed_at"),
            models.Index(fields=["flagged_at"], name="order_flagged", condition=Q(flagged_at__isnull=False)),
            models.Index(fields=["created_at", "status"], name="order_unsold", condition=Q(status__in=UNSOLD)),
        ]

    def __str__(self) -> str:
        return self.reference

    def get_absolute_url(self) -> str:
        return reverse("orders:detail", args=[self.reference])

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def can_cancel(self) -> bool:
        return self.status in MAY_BECOME[Status.CANCELLED]

    @property
    def can_refund(self) -> bool:
        """Makes a query."""
        return any(payment.can_refund for payment in self.payments.all())

    @property
    def can_replay(self) -> bool:
        return self.status == Status.REJECTED

    @property
    def can_retry_payment(self) -> bool:
        return self.status == Status.PAYMENT_FAILED

    def mark_cancelled(self) -> bool:
        """Cancel the order; False when it is too late. What is pending or unpaid holds no stock."""
        return bool(self._self().move(Status.CANCELLED, "You cancelled this order."))

    def mark_pending(self, after: Status = Status.PAYMENT_FAILED) -> bool:
        """Start over after a failed payment, or a rejection; False when the order is no longer there."""
        return bool(
            self._self().filter(status=after).move(Status.PENDING, due_at=first_look(), opened_at=timezone.now())
        )

    @property
    def log_keys(self) -> dict[str, str]:
        return {"order": self.reference}

    def _self(self) -> OrderQuerySet:
        return Order.objects.filter(pk=self.pk)


def first_look() -> datetime:
    """When the sweep looks after an order whose message did not arrive."""
    return timezone.now() + settings.ORDER_LEASE


def remembered_since() -> datetime:
    """Since when the provider remembers keys: what it was asked before could be charged twice."""
    return timezone.now() - settings.ORDER_GIVEN_UP_AFTER


class OrderItem(models.Model):
    """Name and price as they were when the order was placed."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="items")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=80)
    price = models.DecimalField(max_digits=9, decimal_places=2)
    quantity = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(quantity__gt=0), name="item_quantity_positive"),
            models.UniqueConstraint(fields=["order", "product"], name="item_once_per_order"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} × {self.name}"

    @property
    def total(self) -> Decimal:
        return self.price * self.quantity


def total_of(items: Iterable[OrderItem]) -> Decimal:
    return sum((item.total for item in items), Decimal())
