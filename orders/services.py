"""The use cases of the shop. None of them knows Celery; all of them may be repeated."""

import logging
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from django.db import transaction
from django.utils import timezone

from accounts.models import User
from myproject.errors import PermanentError, TemporaryError

from . import payments
from .models import (
    Kind,
    Order,
    OrderEvent,
    OrderItem,
    Payment,
    PaymentStatus,
    Product,
    Status,
    first_look,
    total_of,
)

log = logging.getLogger(__name__)


# --- Placing ---


def place_order(customer: User, quantities: Mapping[Product, int], card: str, token: uuid.UUID) -> Order:
    """Write down the order, its items and its first payment; the same token gives the same order."""
    items = [
        OrderItem(product=product, name=product.name, price=product.price, quantity=quantity)
        for product, quantity in quantities.items()
    ]
    with transaction.atomic():
        order, is_new = Order.objects.get_or_create(
            customer=customer, token=token, defaults={"total": total_of(items), "due_at": first_look()}
        )
        if is_new:
            for item in items:
                item.order = order
            OrderItem.objects.bulk_create(items)
            start_payment(order, card)
            OrderEvent.objects.record([order.pk], Kind.PLACED)
    return order


def start_payment(order: Order, card: str, attempt: int = 1) -> None:
    Payment.objects.create(order=order, card=card, attempt=attempt, amount=order.total, currency=order.currency)


def pay_again(order: Order, card: str) -> bool:
    """Start a new attempt, with a new key, after a failed payment; False when there is nothing to pay."""
    with transaction.atomic():
        if not order.mark_pending():
            return False
        start_payment(order, card, attempt=order.payments.count() + 1)
    return True


# --- Processing ---


class Processed(NamedTuple):
    """What became of a set: the orders that are completed now, and the errors of those to be asked again."""

    completed: list[int]
    unanswered: list[TemporaryError]


def process_orders(order_ids: Sequence[int], task_id: str) -> Processed:
    """Bring claimed orders to their end, each from wherever its row stands.

    Where the outcome of a charge is unknown, the order stays *processing*: the same key is asked again.
    """
    reserve(order_ids, task_id)
    charging = Payment.objects.filter(order__in=order_ids, order__status=Status.PROCESSING)
    started = list(charging.filter(status=PaymentStatus.STARTED).select_related("order").order_by("order"))
    outcomes = dict(zip(started, payments.charge_all(started), strict=True))
    completed = settle(outcomes, task_id)
    return Processed(completed, [error for error in outcomes.values() if isinstance(error, TemporaryError)])


@transaction.atomic
def reserve(order_ids: Iterable[int], task_id: str) -> None:
    """Take the stock for those of the orders that are pending, or reject them where it does not suffice."""
    pending = Order.objects.filter(pk__in=order_ids, status=Status.PENDING).select_for_update().order_by("pk")
    wanted: dict[int, list[OrderItem]] = {order.pk: [] for order in pending}
    for item in OrderItem.objects.filter(order__in=wanted).order_by("order", "pk"):
        wanted[item.order_id].append(item)
    products = lock_products({item.product_id for items in wanted.values() for item in items})
    reserved = []
    for pk, items in wanted.items():
        if short := [item for item in items if products[item.product_id].stock < item.quantity]:
            reject(pk, short, products, task_id)
            continue
        for item in items:
            products[item.product_id].stock -= item.quantity
        reserved.append(pk)
    Product.objects.bulk_update(products.values(), ["stock"])
    Order.objects.filter(pk__in=reserved).move(Status.PROCESSING, task_id=task_id)


def reject(order_id: int, short: Iterable[OrderItem], products: Mapping[int, Product], task_id: str) -> None:
    lines = [f"{line.name} ({products[line.product_id].stock} left, {line.quantity} ordered)" for line in short]
    reason = f"Out of stock: {', '.join(lines)}. You were not charged."
    Order.objects.filter(pk=order_id).move(Status.REJECTED, reason, task_id=task_id)


@transaction.atomic
def settle(outcomes: Mapping[Payment, payments.Outcome], task_id: str) -> list[int]:
    """Write down what the provider answered; return the orders that are completed by it."""
    lock(payment.order_id for payment in outcomes)
    failed = []
    for payment, outcome in outcomes.items():
        if isinstance(outcome, TemporaryError):
            OrderEvent.objects.record([payment.order_id], Kind.RETRY, detail=str(outcome), task_id=task_id)
        elif isinstance(outcome, PermanentError) and fail(payment, str(outcome), task_id):
            failed.append(payment.order_id)
    release(failed)
    return complete({p: outcome for p, outcome in outcomes.items() if isinstance(outcome, str)}, task_id)


def lock(order_ids: Iterable[int]) -> None:
    """Lock the orders, always in the order of their keys, so that two workers cannot wait for each other."""
    list(Order.objects.filter(pk__in=order_ids).select_for_update().order_by("pk").values_list("pk"))


def complete(charged: Mapping[Payment, str], task_id: str) -> list[int]:
    orders = Order.objects.filter(pk__in=[payment.order_id for payment in charged])
    now = timezone.now()
    completed = orders.move(Status.COMPLETED, task_id=task_id, completed_at=now, mail_due_at=now)
    paid = [payment for payment in charged if payment.order_id in completed]
    for payment in paid:
        payment.status, payment.provider_id = PaymentStatus.SUCCEEDED, charged[payment]
    Payment.objects.bulk_update(paid, ["status", "provider_id"])
    return completed


def fail(payment: Payment, reason: str, task_id: str) -> bool:
    """End the attempt; False when somebody else ended it first."""
    if not Order.objects.filter(pk=payment.order_id).move(Status.PAYMENT_FAILED, reason, task_id=task_id):
        return False
    Payment.objects.filter(pk=payment.pk).update(status=PaymentStatus.DECLINED, reason=reason[:200])
    return True


def release(order_ids: Iterable[int]) -> None:
    """Give the stock of these orders back."""
    quantities: Counter[int] = Counter()
    for product_id, quantity in OrderItem.objects.filter(order__in=order_ids).values_list("product", "quantity"):
        quantities[product_id] += quantity
    products = lock_products(quantities)
    for pk, quantity in quantities.items():
        products[pk].stock += quantity
    Product.objects.bulk_update(products.values(), ["stock"])


def lock_products(ids: Iterable[int]) -> dict[int, Product]:
    """Lock the products, always in the order of their keys, so that two workers cannot wait for each other."""
    return {p.pk: p for p in Product.objects.filter(pk__in=ids).select_for_update().order_by("pk")}
