"""Orders, and the transition table of their state machine."""

import logging
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any, Self

from django.conf import settings
from django.contrib.postgres.indexes import BrinIndex
from django.db import connection, models, transaction
from django.db.models import Count, OuterRef, Q, Subquery
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property

from durable.errors import ReasonField
from durable.leases import Lease, Leased
from durable.mail import MAIL, MailQuerySet, OwesMail
from myproject.alerting.alerts import alert
from myproject.texts import WordsField

from .. import money
from .events import Kind, OrderEvent
from .payments import MOST_ATTEMPTS, Payment
from .products import Product

log = logging.getLogger(__name__)

# Without I, L, O, U, since references are read aloud on the telephone (Crockford's base 32).
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_reference() -> str:
    letters = "".join(secrets.choice(ALPHABET) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"


def own_currency() -> str:
    return settings.CURRENCY


class Status(models.TextChoices):
    PENDING = "pending", "Pending"
    PROCESSING = "processing", "Processing"
    COMPLETED = "completed", "Completed"
    REJECTED = "rejected", "Rejected"
    PAYMENT_FAILED = "payment_failed", "Payment failed"
    CANCELLED = "cancelled", "Cancelled"
    REFUNDED = "refunded", "Refunded"


# For each status the statuses that may precede it. Every change of status goes through `OrderQuerySet.move`, which
# enforces this table.
MAY_BECOME = {
    Status.PENDING: [Status.PAYMENT_FAILED, Status.REJECTED],
    Status.PROCESSING: [Status.PENDING],
    Status.COMPLETED: [Status.PROCESSING],
    Status.REJECTED: [Status.PENDING],
    Status.PAYMENT_FAILED: [Status.PROCESSING],
    Status.CANCELLED: [Status.PENDING, Status.PAYMENT_FAILED],
    # Also from *processing*: the provider may charge a wrong amount, or its refund may arrive before our own update.
    Status.REFUNDED: [Status.COMPLETED, Status.PROCESSING],
}
OPEN = [Status.PENDING, Status.PROCESSING]
# What staff did so long ago is the same press of the button.
JUST = timedelta(seconds=10)
# What ended without a sale: few, beside the completed ones.
UNSOLD = [Status.REJECTED, Status.PAYMENT_FAILED, Status.CANCELLED]
# The units of such an order are not in the stock: `reserve` took them, and nothing gave them back.
HOLDS_STOCK = [Status.PROCESSING, Status.COMPLETED]


class OrderQuerySet(MailQuerySet):
    def of(self, customer: object) -> Self:
        return self.filter(customer=customer)

    def visible_to(self, person: Any) -> Self:
        """The person's own orders; for staff who may see orders, all."""
        return self.all() if person.is_staff and person.has_perm("orders.view_order") else self.of(person)

    def placed_between(self, start: datetime, end: datetime) -> Self:
        return self.filter(created_at__gte=start, created_at__lt=end)

    def open(self) -> Self:
        return self.filter(status__in=OPEN)

    def unsold_since(self, moment: datetime) -> Self:
        """Orders placed since then that ended without a sale."""
        return self.filter(status__in=UNSOLD, created_at__gte=moment)

    def completed_since(self, moment: datetime) -> Self:
        """Orders that were completed since then, whatever their status now."""
        return self.filter(completed_at__gte=moment)

    def by_status(self) -> dict[str, int]:
        """Count the orders of each status. Makes a query."""
        return dict(self.order_by("status").values_list("status").annotate(Count("pk")))

    def count_unfinished(self) -> dict[str, int]:
        """Count the open orders of each status, and as *flagged* those that need a person. Makes a query."""
        counts = {status.value: Count("pk", filter=Q(status=status)) for status in OPEN}
        flagged = Q(flagged_at__isnull=False)
        return self.filter(Q(status__in=OPEN) | flagged).aggregate(**counts, flagged=Count("pk", filter=flagged))

    def remembered(self) -> Self:
        """Orders whose idempotency key the provider still knows, so that a retry cannot charge twice."""
        return self.filter(opened_at__gt=remembered_since())

    def for_machine(self) -> Self:
        """Orders that workers may process: not flagged, and their key still known to the provider."""
        return self.remembered().filter(flagged_at=None)

    def for_person(self) -> Self:
        """Orders to hand to a person: not flagged yet, and their key forgotten by the provider."""
        return self.filter(flagged_at=None, opened_at__lte=remembered_since())

    def unsettled(self) -> Self:
        """Orders that are not finished for their customer: open, flagged, or with a refund pending."""
        refunding = Q(payments__refund_due_at__isnull=False)
        return self.filter(Order.lease.open | Q(flagged_at__isnull=False) | refunding).distinct()

    def flagged(self) -> Self:
        return self.filter(flagged_at__isnull=False)

    def requeued(self) -> Self:
        """Flagged orders that staff have requeued, and of which nothing was heard since: the message may be lost."""
        newest = OrderEvent.objects.filter(order=OuterRef("pk")).order_by("-pk").values("kind")[:1]
        return self.flagged().remembered().alias(newest=Subquery(newest)).filter(newest=Kind.REQUEUED)

    def flag(self, reason: str) -> list[str]:
        """Flag these orders for a person, once per reason, with one alert for all; return the newly flagged ones."""
        with transaction.atomic():
            fresh = self.exclude(flagged_at__isnull=False, flag_reason=reason).select_for_update().order_by("pk")
            flagged = {order.pk: order.reference for order in fresh.only("pk", "reference")}
            everybody = self.model._base_manager.filter(pk__in=flagged)
            everybody.update(flagged_at=timezone.now(), flag_reason=reason)
            OrderEvent.objects.record(flagged, Kind.FLAGGED, detail=reason)
            if flagged:
                some = ", ".join(list(flagged.values())[:20])
                message = f"{len(flagged)} ({some}): {reason}"
                transaction.on_commit(lambda: alert("Orders that need a person", message), robust=True)
        for reference in flagged.values():
            log.warning("Order %s needs a person: %s", reference, reason, extra={"order": reference})
        return list(flagged.values())

    def mail_failed(self) -> Self:
        """Only for completed orders: a refunded order needs no confirmation."""
        return super().mail_failed().filter(status=Status.COMPLETED)

    def mark_mails_sent(self, rows: Iterable[models.Model]) -> int:
        noted = OrderEvent.objects.insertion("changed", Kind.CONFIRMED)
        sent = {"mail_sent_at": timezone.now(), "mail_error": "", "mail_claimed_by": ""}
        return len(self.held(rows, MAIL).update_returning("id", also=noted, **sent))

    def unflag(self, detail: str = "") -> int:
        """Take the flags off; return how many there were."""
        with transaction.atomic():
            ids = list(self.flagged().select_for_update().order_by("pk").values_list("pk", flat=True))
            self.model._base_manager.filter(pk__in=ids).update(flagged_at=None, flag_reason="")
            OrderEvent.objects.record(ids, Kind.SETTLED, detail=detail)
        return len(ids)

    def mark_requeued(self, detail: str) -> dict[int, str]:
        """Record that staff requeue these orders, but for those that were a moment ago; return references by key.

        An order whose key the provider has forgotten may be charged for another day: a person has checked for a charge.
        """
        with transaction.atomic():
            rows = dict(self.select_for_update().order_by("pk").values_list("pk", "reference"))
            # A double click: the other one has been waited for by the lock.
            events = OrderEvent.objects.filter(order__in=rows, kind=Kind.REQUEUED, created_at__gt=timezone.now() - JUST)
            done = set(events.values_list("order", flat=True))
            requeued = {pk: reference for pk, reference in rows.items() if pk not in done}
            OrderEvent.objects.record(requeued, Kind.REQUEUED, detail=detail)
            # If the key is still known, the order stays as old as its key.
            forgotten = Order.objects.open().filter(pk__in=requeued, opened_at__lte=remembered_since())
            forgotten.update(opened_at=timezone.now())
        return requeued

    def claim_with_others(self, pk: int, limit: int) -> list["Order"]:
        """Claim one order and other waiting ones, `limit` in all; call it in a transaction, which keeps them locked."""
        # Its message may be very old. The key of a pending order was never sent.
        safe = Q(status=Status.PENDING) | Q(opened_at__gt=remembered_since())
        return self.for_machine().claim(first=self.filter(safe, pk=pk), limit=limit)

    def lock_with_stock(self, order_ids: Iterable[int]) -> list[tuple[int, int, str, int, int]]:
        """Lock the pending ones of these orders and their products, these in key order, which prevents deadlocks.

        Return for each line its order, product, name and quantity, and the stock left, in the order of the orders.
        """
        # The lock of an update: a checkout that refers to the products does not wait for it.
        sql = """SELECT order_id, item.id, product_id, item.name, quantity, stock
            FROM orders_order JOIN orders_orderitem AS item ON order_id = orders_order.id
            JOIN orders_product AS product ON product.id = product_id
            WHERE orders_order.id = ANY(%s) AND status = %s
            ORDER BY product_id, order_id FOR NO KEY UPDATE OF product, orders_order"""
        with connection.cursor() as cursor:
            cursor.execute(sql, [list(order_ids), Status.PENDING])
            return [(order, *line) for order, _, *line in sorted(cursor.fetchall())]

    def move(self, to: Status, reason: str = "", **fields: object) -> list[int]:
        """Move each of these orders that may become `to`, with an event, in one transaction; return their ids.

        This is a compare-and-set: an order that was moved by someone else first is not in the result. Several orders
        must have been locked before, in key order.
        """
        if to not in OPEN:
            fields |= Order.lease.ended()
        with transaction.atomic(savepoint=False):
            movable = self.filter(status__in=MAY_BECOME[to])
            noted = OrderEvent.objects.insertion("changed", Kind(to.value), reason)
            moved = dict(movable.update_returning("id", "reference", also=noted, status=to, reason=reason, **fields))
            if to == Status.CANCELLED:
                Payment.objects.filter(order__in=moved).mark_cancelled()
        for reference in moved.values():
            log.info("Order %s is %s %s", reference, to.value, reason, extra={"order": reference})
        return list(moved)


class Order(Leased, OwesMail):
    """One customer's order; the mail owed is the confirmation."""

    owed_since = "completed_at"
    lease = Lease(open=Q(status__in=OPEN), lasts=lambda: settings.ORDER_LEASE)

    reference = models.CharField(max_length=9, unique=True, default=new_reference, editable=False)
    customer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="orders")
    token = models.UUIDField(help_text="From the checkout form: a form that is sent twice orders once.")
    status = models.CharField(max_length=14, choices=Status.choices, default=Status.PENDING)
    reason = ReasonField(max_length=200, blank=True)
    total = models.DecimalField(max_digits=11, decimal_places=2)
    currency = models.CharField(max_length=3, default=own_currency)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    completed_at = models.DateTimeField(null=True, blank=True)
    # Or when staff requeued it although it was old.
    opened_at = models.DateTimeField(default=timezone.now, help_text="When it last became pending.")
    flagged_at = models.DateTimeField("needs a person since", null=True, blank=True)
    flag_reason = ReasonField(max_length=200, blank=True)

    objects = OrderQuerySet.as_manager()

    class Meta:
        permissions = [("refund_order", "Can refund order")]
        constraints = [
            models.UniqueConstraint(fields=["customer", "token"], name="order_once_per_form"),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="order_status_known"),
            models.CheckConstraint(condition=Q(total__gt=0), name="order_total_positive"),
            models.CheckConstraint(condition=money.is_number("total"), name="order_total_is_number"),
            models.CheckConstraint(condition=money.whole_where_due("total"), name="order_total_expressible"),
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
            # Sweeps and claims read only open orders, however many are finished.
            models.Index(fields=["due_at"], name="order_open", condition=Q(status__in=OPEN)),
            models.Index(fields=["customer", "-created_at", "-id"], name="order_of_customer"),
            models.Index(fields=["completed_at"], name="order_completed_at"),
            models.Index(fields=["flagged_at"], name="order_flagged", condition=Q(flagged_at__isnull=False)),
            models.Index(fields=["created_at", "status"], name="order_unsold", condition=Q(status__in=UNSOLD)),
            models.Index(fields=["status"], name="order_refunded", condition=Q(status=Status.REFUNDED)),
            # Orders lie in the table about as they were placed, so the first and last time of each 32 pages are enough.
            BrinIndex(fields=["created_at"], name="order_placed", pages_per_range=32, autosummarize=True),
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
    def can_restart(self) -> bool:
        return self.status == Status.REJECTED

    @cached_property
    def can_retry_payment(self) -> bool:
        """Makes a query where a payment has failed."""
        return self.status == Status.PAYMENT_FAILED and self.payments.count() < MOST_ATTEMPTS

    def mark_cancelled(self) -> bool:
        """Cancel the order; False if it is too late. Pending and unpaid orders hold no stock."""
        return bool(self._self().move(Status.CANCELLED, "You cancelled this order."))

    def mark_pending(self, after: Status = Status.PAYMENT_FAILED) -> bool:
        """Restart after a failed payment or a rejection; False if the order is in another status."""
        return bool(
            self._self().filter(status=after).move(Status.PENDING, opened_at=timezone.now(), **self.lease.fresh())
        )

    @property
    def shown(self) -> str:
        """Say all that somebody agrees to who refunds it or charges it again. Makes a query."""
        payments = sorted(self.payments.all(), key=attrgetter("attempt"))
        said = f"{self.reference}: {money.text(self.total, self.currency)}, {self.get_status_display()}"
        return "; ".join([said, *(payment.shown for payment in payments)])

    @property
    def log_keys(self) -> dict[str, str]:
        return {"order": self.reference}

    def _self(self) -> OrderQuerySet:
        return Order.objects.filter(pk=self.pk)


def remembered_since() -> datetime:
    """Return since when the provider remembers keys: an older request could be charged twice."""
    return timezone.now() - settings.ORDER_GIVEN_UP_AFTER


class OrderItem(models.Model):
    """Name and price at the time of the order."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="items")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="+")
    name = WordsField(max_length=80)
    price = models.DecimalField(max_digits=11, decimal_places=2)
    quantity = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(quantity__gt=0), name="item_quantity_positive"),
            models.CheckConstraint(condition=money.is_number("price"), name="item_price_is_number"),
            models.UniqueConstraint(fields=["order", "product"], name="item_once_per_order"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} × {self.name}"

    @property
    def total(self) -> Decimal:
        return self.price * self.quantity


def total_of(items: Iterable[OrderItem]) -> Decimal:
    return sum((item.total for item in items), Decimal())
