"""How an order is paid, and paid back."""

import uuid
from collections.abc import Mapping
from typing import Any, Self

from django.db import connection, models
from django.db.models import Q
from django.utils import timezone


class Card(models.TextChoices):
    """The provider's test cards: a payment method of Stripe's, and what the sandbox does with it."""

    VISA = "pm_card_visa", "Visa ending 4242: works"
    DECLINED = "pm_card_visa_chargeDeclined", "Visa ending 0002: is declined"
    INSUFFICIENT = "pm_card_visa_chargeDeclinedInsufficientFunds", "Visa ending 9995: has insufficient funds"
    SLOW = "pm_card_slow", "Visa ending 3184: works, but the bank answers slowly"


class PaymentStatus(models.TextChoices):
    STARTED = "started", "Started"
    SUCCEEDED = "succeeded", "Succeeded"
    # Money has moved, but not what the order costs: only a person can say what is right.
    MISMATCHED = "mismatched", "Wrong amount"
    DECLINED = "declined", "Declined"
    REFUNDED = "refunded", "Refunded"


# At most one attempt of an order is any of these.
ALIVE = [PaymentStatus.STARTED, PaymentStatus.SUCCEEDED, PaymentStatus.MISMATCHED]


class PaymentQuerySet(models.QuerySet["Payment"]):
    def mark_succeeded(self, provider_ids: Mapping[int, str]) -> None:
        """End each payment (by its key) well, with the provider's id, in one statement."""
        sql = "UPDATE orders_payment SET status = %s, provider_id = given FROM unnest(%s::bigint[], %s::text[])"
        values: list[Any] = [PaymentStatus.SUCCEEDED, list(provider_ids), list(provider_ids.values())]
        with connection.cursor() as cursor:
            cursor.execute(f"{sql} AS a (pk, given) WHERE id = pk", values)

    def refundable(self) -> Self:
        """Payments that the provider holds money of."""
        charged = [PaymentStatus.SUCCEEDED, PaymentStatus.MISMATCHED]
        return self.filter(status__in=charged).exclude(provider_id="")

    def refund_wanted(self) -> Self:
        return self.refundable().filter(refund_due_at__isnull=False)

    def refund_overdue(self) -> Self:
        """Refunds that nobody works on although their time has come."""
        return self.refund_wanted().filter(refund_due_at__lte=timezone.now())


class Payment(models.Model):
    """One attempt of a customer to pay. Its key is committed before the provider is asked.

    However often the machine asks again, the key stays, so that the provider charges once; a customer who tries
    another card starts a new attempt with a new key. A refund has a key of its own, written down when it is asked
    for; `refund_due_at` None: no refund is wanted, or it has ended.
    """

    order = models.ForeignKey("orders.Order", on_delete=models.CASCADE, related_name="payments")
    attempt = models.PositiveSmallIntegerField(default=1)
    key = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    card = models.CharField(max_length=60, choices=Card.choices)
    amount = models.DecimalField(max_digits=11, decimal_places=2)
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=10, choices=PaymentStatus.choices, default=PaymentStatus.STARTED)
    provider_id = models.CharField(max_length=60, blank=True, db_index=True)
    reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    refund_key = models.UUIDField(unique=True, null=True, blank=True, editable=False)
    refund_wanted_at = models.DateTimeField(null=True, blank=True)
    refund_due_at = models.DateTimeField(null=True, blank=True, help_text="When the sweep asks for the refund again.")
    refund_id = models.CharField(max_length=60, blank=True)

    objects = PaymentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "attempt"], name="payment_attempt_once"),
            models.UniqueConstraint(
                fields=["order"],
                condition=Q(status__in=ALIVE),
                name="payment_one_alive_per_order",
            ),
            models.CheckConstraint(condition=Q(amount__gt=0), name="payment_amount_positive"),
            models.CheckConstraint(
                condition=Q(refund_due_at=None) | Q(refund_key__isnull=False, refund_wanted_at__isnull=False),
                name="payment_refund_has_key",
            ),
        ]
        indexes = [
            models.Index(fields=["refund_due_at"], name="payment_refund_due", condition=Q(refund_due_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.order_id}, attempt {self.attempt}"

    @property
    def can_refund(self) -> bool:
        charged = self.status in (PaymentStatus.SUCCEEDED, PaymentStatus.MISMATCHED)
        return charged and bool(self.provider_id) and self.refund_due_at is None

    @property
    def card_label(self) -> str:
        return self.get_card_display().partition(":")[0]
