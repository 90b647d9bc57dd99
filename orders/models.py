"""What is sold, what was ordered, and the one table of what an order may become."""

import logging
import secrets
import uuid
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from django.conf import settings
from django.db import models, transaction
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify

from myproject.mail import MailQuerySet, OwesMail

log = logging.getLogger(__name__)

# Without I, L, O, U: a reference is read aloud on the telephone (Crockford's base 32).
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_reference() -> str:
    letters = "".join(secrets.choice(ALPHABET) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"


class ProductQuerySet(models.QuerySet["Product"]):
    def on_sale(self) -> Self:
        return self.filter(is_active=True)

    def adjust_stock(self, by: int) -> int:
        """Add units (or take away) where the stock suffices; return how many products had enough."""
        return self.filter(stock__gte=-by).update(stock=F("stock") + by)


class Product(models.Model):
    sku = models.CharField("SKU", max_length=20, unique=True)
    slug = models.SlugField(max_length=80, unique=True, editable=False)
    name = models.CharField(max_length=80)
    category = models.CharField(max_length=40, db_index=True)
    description = models.TextField(blank=True)
    price = models.DecimalField(max_digits=9, decimal_places=2)
    stock = models.IntegerField(default=0, help_text="Units that may still be ordered; reserved ones are gone already.")
    is_active = models.BooleanField("on sale", default=True)

    objects = ProductQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(stock__gte=0), name="product_stock_not_negative"),
            models.CheckConstraint(condition=Q(price__gt=0), name="product_price_positive"),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: object, **kwargs: object) -> None:
        self.slug = self.slug or slugify(f"{self.name} {self.sku}")
        super().save(*args, **kwargs)  # type: ignore[arg-type]

    def get_absolute_url(self) -> str:
        return reverse("orders:product", args=[self.slug])


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
    Status.PENDING: [Status.PAYMENT_FAILED],
    Status.PROCESSING: [Status.PENDING],
    Status.COMPLETED: [Status.PROCESSING],
    Status.REJECTED: [Status.PENDING],
    Status.PAYMENT_FAILED: [Status.PROCESSING],
    Status.CANCELLED: [Status.PENDING, Status.PAYMENT_FAILED],
    Status.REFUNDED: [Status.COMPLETED],
}
OPEN = [Status.PENDING, Status.PROCESSING]


class OrderQuerySet(MailQuerySet):
    def of(self, customer: object) -> Self:
        return self.filter(customer=customer)

    def open(self) -> Self:
        return self.filter(status__in=OPEN)

    def left_behind(self) -> Self:
        """Open orders that nobody works on although their time has come."""
        return self.open().filter(due_at__lte=timezone.now())

    def claim(self, claimant: str, first: int, limit: int) -> list[int]:
        """Take order `first` and up to `limit` others that wait, for `settings.ORDER_LEASE`; return their ids.

        An order is free when no one claimed it, when its time has come, or when the same claimant, a task that
        is tried again, comes back for it.
        """
        now = timezone.now()
        free = self.open().filter(Q(claimed_by="") | Q(due_at__lte=now) | Q(claimed_by=claimant))
        with transaction.atomic():
            rows = free.select_for_update(skip_locked=True).values_list("pk", flat=True)
            ids = list(rows.filter(pk=first)) + list(rows.exclude(pk=first).order_by("due_at")[: limit - 1])
            self.filter(pk__in=ids).update(claimed_by=claimant, due_at=now + settings.ORDER_LEASE)
        return ids

    def move(self, to: Status, reason: str = "", *, task_id: str = "", **fields: object) -> list[int]:
        """Move each of these orders that may become `to`, with its event, in one transaction; return their ids.

        An order that somebody else moved first is left out: whoever finds it in the answer has won it.
        """
        with transaction.atomic():
            movable = self.filter(status__in=MAY_BECOME[to]).select_for_update().order_by("pk")
            moved = {order.pk: order.reference for order in movable.only("pk", "reference")}
            if to not in OPEN:
                fields |= {"claimed_by": "", "due_at": None}
            self.model._base_manager.filter(pk__in=moved).update(status=to, reason=reason[:200], **fields)
            OrderEvent.objects.record(moved, Kind(to.value), detail=reason, task_id=task_id)
        for reference in moved.values():
            log.info("Order %s is %s %s", reference, to.value, reason)
        return list(moved)


class Order(OwesMail):
    """One customer's order; the mail owed is the confirmation."""

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
    def can_retry_payment(self) -> bool:
        return self.status == Status.PAYMENT_FAILED

    def mark_cancelled(self) -> bool:
        """Cancel the order; False when it is too late. What is pending or unpaid holds no stock."""
        return bool(self._self().move(Status.CANCELLED, "You cancelled this order."))

    def mark_pending(self) -> bool:
        """Start over after a failed payment; False when the order is no longer there."""
        return bool(self._self().move(Status.PENDING, due_at=first_look()))

    def _self(self) -> OrderQuerySet:
        return Order.objects.filter(pk=self.pk)


def first_look() -> datetime:
    """When the sweep looks after an order whose message did not arrive."""
    return timezone.now() + settings.ORDER_LEASE


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


class Card(models.TextChoices):
    """The provider's test cards: a payment method of Stripe's, and what the sandbox does with it."""

    VISA = "pm_card_visa", "Visa ending 4242: works"
    DECLINED = "pm_card_visa_chargeDeclined", "Visa ending 0002: is declined"
    INSUFFICIENT = "pm_card_visa_chargeDeclinedInsufficientFunds", "Visa ending 9995: has insufficient funds"
    SLOW = "pm_card_slow", "Visa ending 3184: works, but the bank answers slowly"


class PaymentStatus(models.TextChoices):
    STARTED = "started", "Started"
    SUCCEEDED = "succeeded", "Succeeded"
    DECLINED = "declined", "Declined"
    REFUNDED = "refunded", "Refunded"


class Payment(models.Model):
    """One attempt of a customer to pay. Its key is committed before the provider is asked.

    However often the machine asks again, the key stays, so that the provider charges once; a customer who tries
    another card starts a new attempt with a new key.
    """

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="payments")
    attempt = models.PositiveSmallIntegerField(default=1)
    key = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    card = models.CharField(max_length=60, choices=Card.choices)
    amount = models.DecimalField(max_digits=11, decimal_places=2)
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=9, choices=PaymentStatus.choices, default=PaymentStatus.STARTED)
    provider_id = models.CharField(max_length=60, blank=True, db_index=True)
    reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "attempt"], name="payment_attempt_once"),
            models.UniqueConstraint(
                fields=["order"],
                condition=Q(status__in=[PaymentStatus.STARTED, PaymentStatus.SUCCEEDED]),
                name="payment_one_alive_per_order",
            ),
            models.CheckConstraint(condition=Q(amount__gt=0), name="payment_amount_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.order_id}, attempt {self.attempt}"

    @property
    def card_label(self) -> str:
        return self.get_card_display().partition(":")[0]


class Kind(models.TextChoices):
    """What can happen to an order, in the words that its customer reads."""

    PLACED = "placed", "Order placed"
    PENDING = "pending", "Another card was given"
    PROCESSING = "processing", "Stock reserved, charging your card"
    RETRY = "retry", "The payment provider did not answer, trying again"
    COMPLETED = "completed", "Payment received, order completed"
    REJECTED = "rejected", "Order rejected"
    PAYMENT_FAILED = "payment_failed", "Payment failed"
    CANCELLED = "cancelled", "Order cancelled"
    REFUNDED = "refunded", "Payment refunded"
    CONFIRMED = "confirmed", "Confirmation mailed"
    NUDGED = "nudged", "Queued again"


class OrderEventQuerySet(models.QuerySet[Any]):
    def record(self, order_ids: Iterable[int], kind: Kind, *, detail: str = "", task_id: str = "") -> None:
        """Write one event for each order; call it in the transaction of the change."""
        events = [OrderEvent(order_id=pk, kind=kind, detail=detail[:300], task_id=task_id) for pk in order_ids]
        OrderEvent.objects.bulk_create(events)


class OrderEvent(models.Model):
    """One line of an order's time line."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=14, choices=Kind.choices)
    detail = models.CharField(max_length=300, blank=True, help_text="For staff; the customer reads the kind's label.")
    task_id = models.CharField(max_length=40, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = OrderEventQuerySet.as_manager()

    def __str__(self) -> str:
        return self.title

    @property
    def title(self) -> str:
        return self.get_kind_display()


def total_of(items: Iterable[OrderItem]) -> Decimal:
    return sum((item.total for item in items), Decimal())
