"""Payments and refunds of orders."""

import uuid
from collections.abc import Mapping
from typing import Any, Self

from django.conf import settings
from django.db import connection, models
from django.db.models import Q
from django.utils import timezone

from durable.errors import ReasonField
from durable.leases import HasLease, Lease, LeasedQuerySet

from .. import money


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
    # Its order was cancelled before the provider was asked.
    CANCELLED = "cancelled", "Not charged"
    REFUNDED = "refunded", "Refunded"


# The provider holds money.
CHARGED = [PaymentStatus.SUCCEEDED, PaymentStatus.MISMATCHED]
REFUNDABLE = Q(status__in=CHARGED) & ~Q(provider_id="")
# At most one attempt of an order is any of these.
ALIVE = [PaymentStatus.STARTED, *CHARGED]


class PaymentQuerySet(LeasedQuerySet["Payment"]):
    def mark_succeeded(self, provider_ids: Mapping[int, str]) -> None:
        """Mark each payment (by primary key) as succeeded, with the provider's id, in one statement."""
        sql = "UPDATE orders_payment SET status = %s, provider_id = given FROM unnest(%s::bigint[], %s::text[])"
        values: list[Any] = [PaymentStatus.SUCCEEDED, list(provider_ids), list(provider_ids.values())]
        with connection.cursor() as cursor:
            cursor.execute(f"{sql} AS a (pk, given) WHERE id = pk", values)

    def started(self) -> Self:
        return self.filter(status=PaymentStatus.STARTED)

    def mark_cancelled(self) -> None:
        """End those of these attempts that have not ended."""
        self.started().update(status=PaymentStatus.CANCELLED)

    def refundable(self) -> Self:
        """Payments whose money the provider holds."""
        return self.filter(REFUNDABLE)

    def refund_wanted(self) -> Self:
        return self.filter(Payment.lease.open)


# Of one order: no one tries more often in earnest, and the column counts to 32,767.
MOST_ATTEMPTS = 1_000


class Payment(HasLease):
    """One attempt of a customer to pay. Its idempotency key is committed before the provider is called.

    However often the machine asks again, the key stays, so that the provider charges once; a customer who tries
    another card starts a new attempt with a new key. A refund has a key of its own, written down when it is asked
    for; `refund_due_at` None: no refund is wanted, or it has ended. The charge is done under the order's lease, the
    refund under the payment's own.
    """

    lease = Lease(
        open=REFUNDABLE & Q(refund_due_at__isnull=False), lasts=lambda: settings.ORDER_LEASE, prefix="refund_"
    )

    order = models.ForeignKey("orders.Order", on_delete=models.CASCADE, related_name="payments")
    attempt = models.PositiveSmallIntegerField(default=1)
    key = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    card = models.CharField(max_length=60, choices=Card.choices)
    amount = models.DecimalField(max_digits=11, decimal_places=2)
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=10, choices=PaymentStatus.choices, default=PaymentStatus.STARTED)
    provider_id = models.CharField(max_length=60, blank=True, db_index=True)
    reason = ReasonField(max_length=200, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    refund_key = models.UUIDField(unique=True, null=True, blank=True, editable=False)
    refund_wanted_at = models.DateTimeField(null=True, blank=True)
    refund_due_at = models.DateTimeField(null=True, blank=True, help_text="When the sweep asks for the refund again.")
    refund_claimed_by = models.CharField(max_length=80, blank=True, default="", db_default="", editable=False)
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
            models.CheckConstraint(condition=money.is_number("amount"), name="payment_amount_is_number"),
            models.CheckConstraint(condition=money.whole_where_due("amount"), name="payment_amount_expressible"),
            models.CheckConstraint(
                condition=Q(refund_due_at=None) | Q(refund_key__isnull=False, refund_wanted_at__isnull=False),
                name="payment_refund_has_key",
            ),
        ]
        indexes = [
            models.Index(fields=["refund_due_at"], name="payment_refund_due", condition=Q(refund_due_at__isnull=False)),
            models.Index(fields=["status"], name="payment_unusual", condition=~Q(status=PaymentStatus.SUCCEEDED)),
        ]

    def __str__(self) -> str:
        return f"{self.order_id}, attempt {self.attempt}"

    @property
    def can_refund(self) -> bool:
        return self.status in CHARGED and bool(self.provider_id) and self.refund_due_at is None

    def mark_declined(self, reason: str) -> bool:
        """End the attempt; False when it had ended before."""
        return self._end(status=PaymentStatus.DECLINED, reason=reason)

    def mark_mismatched(self, provider_id: str, reason: str) -> bool:
        """Record a charge of a wrong amount; False if the attempt had ended before."""
        return self._end(status=PaymentStatus.MISMATCHED, provider_id=provider_id, reason=reason)

    def mark_refund_wanted(self) -> None:
        """Request the refund; it gets a new key only if the provider has refused the previous one."""
        wanted = {"refund_key": self.refund_key or uuid.uuid4(), "refund_wanted_at": timezone.now(), "reason": ""}
        Payment.objects.filter(pk=self.pk).update(**wanted, **self.lease.fresh())

    def mark_refund_refused(self, reason: str) -> bool:
        """End a refund that the provider refuses; False if another worker holds it, or it has ended."""
        return self.finish(refund_key=None, reason=reason)

    def mark_refunded(self, provider_id: str, refund_id: str) -> None:
        refunded = {"status": PaymentStatus.REFUNDED, "provider_id": provider_id, "refund_id": refund_id}
        Payment.objects.filter(pk=self.pk).update(**refunded, **self.lease.ended())

    def _end(self, **fields: object) -> bool:
        return bool(Payment.objects.started().filter(pk=self.pk).update(**fields))

    @property
    def shown(self) -> str:
        amount = money.text(self.amount, self.currency)
        said = f"attempt {self.attempt}, {self.card_label}, {amount}: {self.get_status_display()}"
        return f"{said}, refund under way" if self.refund_due_at else said

    @property
    def card_label(self) -> str:
        return self.get_card_display().partition(":")[0]
