"""The use cases of the shop. Nothing here knows Celery; everything may be repeated."""

import logging
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from django.conf import settings
from django.db import DataError, IntegrityError, transaction
from django.utils import timezone
from structlog.contextvars import bind_contextvars

from accounts.models import User
from durable import trace
from durable.errors import PermanentError, TemporaryError
from durable.mail import MAIL
from myproject import texts

from . import money, payments
from .models import (
    ALIVE,
    MOST_ATTEMPTS,
    Card,
    Kind,
    Order,
    OrderEvent,
    OrderItem,
    OrderQuerySet,
    Payment,
    PaymentStatus,
    Product,
    Status,
    recorded_by,
    total_of,
)

log = logging.getLogger(__name__)

# What the database says where a row cannot be as it was meant; another attempt changes nothing.
REFUSALS = (DataError, IntegrityError)


# --- Placing ---


def place_order(customer: User, quantities: Mapping[Product, int], card: str, token: uuid.UUID) -> Order:
    """Create the order, its items and its first payment; the same token returns the same order."""
    items = [
        OrderItem(product=product, name=product.name, price=product.price, quantity=quantity)
        for product, quantity in quantities.items()
    ]
    order = Order(customer=customer, token=token, total=total_of(items), **Order.lease.fresh())
    try:
        with transaction.atomic():
            customer.keep_open()
            order.save()
            for item in items:
                item.order = order
            OrderItem.objects.bulk_create(items)
            start_payment(order, card)
            OrderEvent.objects.record([order.pk], Kind.PLACED)
    except IntegrityError:
        # Either the form was submitted twice, or the error has another reason and there is no such order.
        if placed := Order.objects.filter(customer=customer, token=token).first():
            return placed
        raise
    log.info("Order %s is placed", order, extra={"order": order.reference})
    return order


def start_payment(order: Order, card: str, attempt: int = 1) -> None:
    # Only the cards that the forms offer: any other id, such as someone else's card, must never be charged.
    Payment.objects.create(order=order, card=Card(card), attempt=attempt, amount=order.total, currency=order.currency)


def pay_again(order: Order, card: str) -> bool:
    """Start a new attempt, with a new key, after a failed payment; False if there is nothing to pay, or no longer."""
    with transaction.atomic():
        if order.payments.count() >= MOST_ATTEMPTS or not order.mark_pending():
            return False
        start_payment(order, card, attempt=order.payments.count() + 1)
    return True


def restart(order: Order, by: str) -> bool:
    """Restart a rejected order, since stock may have come back; False if it is not rejected.

    The attempt and its key stay: a rejected order was never charged, so its key was never sent.
    """
    with transaction.atomic():
        if not order.mark_pending(after=Status.REJECTED):
            return False
        OrderEvent.objects.record([order.pk], Kind.REPLAYED, detail=f"by {by}")
    return True


def retry_payment(order: Order, by: str) -> bool:
    """Retry a failed payment with the same card, as a new attempt with a new key; False if nothing has failed."""
    last = order.payments.order_by("-attempt")[:1].get()
    with transaction.atomic():
        if not pay_again(order, last.card):
            return False
        OrderEvent.objects.record([order.pk], Kind.REPLAYED, detail=f"with the same card, by {by}")
    return True


# --- Processing ---


class Processed(NamedTuple):
    """The result of a batch: completed orders, and the errors of those to retry."""

    completed: list[int]
    unanswered: list[TemporaryError]


def claim_orders(first: int, limit: int) -> list[Order]:
    """Claim order `first` and other waiting ones, and reserve their stock; return the claimed orders.

    Where the database refuses one of them, `first` is tried alone, and is a person's if that fails, too.
    """
    try:
        with transaction.atomic():
            claimed = Order.objects.claim_with_others(first, limit)
            reserve(order.pk for order in claimed)
    except REFUSALS as error:
        return claim_orders(first, 1) if limit > 1 else give_to_person(first, error)
    return claimed


def give_to_person(order_id: int, error: Exception) -> list[Order]:
    """Flag an order that the database refuses to take further; no worker takes it up again."""
    log.error("Order %s: %r", order_id, error, exc_info=error)
    Order.objects.filter(pk=order_id).flag(f"The database refuses its next step ({type(error).__name__}).")
    return []


def process_orders(claimed: Sequence[Order]) -> Processed:
    """Charge the claimed orders whose stock is reserved, and settle them.

    If the outcome of a charge is unknown, the order stays *processing* and is retried with the same key.
    """
    orders = {order.pk: order for order in claimed}
    charging = Payment.objects.started().filter(order_id__in=orders, order__status=Status.PROCESSING)
    attempts = list(charging.order_by("order_id"))
    for payment in attempts:
        payment.order = orders[payment.order_id]
    outcomes = dict(zip(attempts, payments.charge_all(attempts), strict=True))
    completed = settle_all(outcomes, Order.objects.held(claimed))
    return Processed(completed, [error for error in outcomes.values() if isinstance(error, TemporaryError)])


@transaction.atomic(savepoint=False)
def reserve(order_ids: Iterable[int]) -> None:
    """Reserve stock for the pending ones of these orders, or reject them if it does not suffice."""
    wanted: dict[int, list[Line]] = defaultdict(list)
    stock: dict[int, int] = {}
    for order_id, product, name, quantity, left in Order.objects.lock_with_stock(order_ids):
        wanted[order_id].append(Line(product, name, quantity))
        stock[product] = left
    if not wanted:
        return
    reserved, taken = [], Counter[int]()
    for pk, lines in wanted.items():
        if short := [line for line in lines if stock[line.product] < line.quantity]:
            reject(pk, short, stock)
            continue
        for line in lines:
            stock[line.product] -= line.quantity
            taken[line.product] -= line.quantity
        reserved.append(pk)
    Product.objects.add_stock(taken)
    Order.objects.filter(pk__in=reserved).move(Status.PROCESSING)


class Line(NamedTuple):
    """What a pending order wants of a product (by its key)."""

    product: int
    name: str
    quantity: int


def reject(order_id: int, short: Iterable[Line], stock: Mapping[int, int]) -> None:
    lines = [f"{texts.isolated(line.name)} ({stock[line.product]} left, {line.quantity} ordered)" for line in short]
    reason = f"Out of stock: {', '.join(lines)}. You were not charged."
    Order.objects.filter(pk=order_id).move(Status.REJECTED, reason)


def settle_all(outcomes: Mapping[Payment, payments.Outcome], orders: OrderQuerySet) -> list[int]:
    """Settle them together; where the database refuses one, each alone, and that one is a person's."""
    try:
        return settle(outcomes, orders)
    except REFUSALS:
        completed: list[int] = []
    for payment, outcome in outcomes.items():
        try:
            completed += settle({payment: outcome}, orders)
        except REFUSALS as error:
            give_to_person(payment.order_id, error)
    return completed


@transaction.atomic
def settle(outcomes: Mapping[Payment, payments.Outcome], orders: OrderQuerySet) -> list[int]:
    """Record the outcomes of these orders' charges; return the completed orders.

    A worker passes the orders that it still holds: a late outcome ends no order, since the next holder retries with the
    same key. Money that is not on record is flagged in any case.
    """
    charged: dict[Payment, str] = {}
    failed: list[int] = []
    for payment, outcome in still_started(outcomes, orders).items():
        match outcome:
            case payments.Charged(provider_id):
                charged[payment] = provider_id
            case TemporaryError():
                OrderEvent.objects.record([payment.order_id], Kind.RETRY, detail=str(outcome))
            case payments.Mismatch():
                hold(payment, outcome)
            case PermanentError():
                failed += fail(payment, str(outcome))
    if failed:
        release(failed)
    completed = complete(charged)
    flag_strays({payment: outcome for payment, outcome in outcomes.items() if payment.order_id not in completed})
    return completed


def still_started(
    outcomes: Mapping[Payment, payments.Outcome], orders: OrderQuerySet
) -> dict[Payment, payments.Outcome]:
    """Lock these of the orders with their payments, and leave out those that another worker has settled.

    A late answer must not end the next attempt.
    """
    started = orders.filter(payments__in=[payment.pk for payment in outcomes], payments__status=PaymentStatus.STARTED)
    # Both are locked: who had to wait reads of both what is true now.
    keys = set(started.select_for_update().order_by("pk").values_list("payments", flat=True))
    return {payment: outcome for payment, outcome in outcomes.items() if payment.pk in keys}


def lock(order_ids: Iterable[int], **fields: object) -> list[int]:
    """Lock the orders with these fields in key order, which prevents deadlocks; return their keys."""
    orders = Order.objects.filter(pk__in=order_ids, **fields).select_for_update().order_by("pk")
    return list(orders.values_list("pk", flat=True))


def complete(charged: Mapping[Payment, str]) -> list[int]:
    orders = Order.objects.filter(pk__in=[payment.order_id for payment in charged])
    completed = orders.move(Status.COMPLETED, completed_at=timezone.now(), **MAIL.fresh())
    won = set(completed)
    Payment.objects.mark_succeeded({p.pk: provider_id for p, provider_id in charged.items() if p.order_id in won})
    return completed


def flag_strays(outcomes: Mapping[Payment, payments.Outcome]) -> None:
    """Flag orders with a charge that is not on record; a charge that is reported twice is none."""
    charged: dict[int, str] = {
        payment.pk: outcome.provider_id
        for payment, outcome in outcomes.items()
        if isinstance(outcome, payments.Charged)
    }
    if not charged:
        return
    for payment in Payment.objects.filter(pk__in=[*charged]).select_related("order"):
        provider_id = charged[payment.pk]
        if payment.provider_id != provider_id and not is_asked_again(payment):
            told = f"The provider charged attempt {payment.attempt} as {provider_id}"
            reason = f"{told}, but the order is {payment.order.status} and that charge is not on record."
            Order.objects.filter(pk=payment.order_id).flag(reason)


def is_asked_again(payment: Payment) -> bool:
    """Return whether another worker holds the order now, and will learn of the charge by the same key."""
    return payment.status == PaymentStatus.STARTED and payment.order.status == Status.PROCESSING


def hold(payment: Payment, mismatch: payments.Mismatch) -> None:
    """Hold an order with a charge of a wrong amount: it is not completed, and a person decides."""
    payment.mark_mismatched(mismatch.provider_id, str(mismatch))
    Order.objects.filter(pk=payment.order_id).flag(str(mismatch))


def fail(payment: Payment, reason: str) -> list[int]:
    """End the attempt; return a queryset of the order, empty if it was ended before."""
    failed = Order.objects.filter(pk=payment.order_id).move(Status.PAYMENT_FAILED, reason)
    if failed:
        payment.mark_declined(reason)
    return failed


def release(order_ids: Iterable[int]) -> None:
    """Return the stock of these orders."""
    quantities: Counter[int] = Counter()
    for product_id, quantity in OrderItem.objects.filter(order__in=order_ids).values_list("product", "quantity"):
        quantities[product_id] += quantity
    lock_products(quantities)
    Product.objects.add_stock(quantities)


def lock_products(ids: Iterable[int]) -> dict[int, Product]:
    """Lock the products; return them by their keys."""
    return {p.pk: p for p in Product.objects.locking(ids)}


# --- Refunding ---


def want_refund(order: Order, by: str) -> bool:
    """Request a refund of the order, with its idempotency key; False if there is nothing to refund."""
    with transaction.atomic():
        lock([order.pk])
        payment = order.payments.refundable().filter(refund_due_at=None).first()
        if payment is None:
            return False
        payment.mark_refund_wanted()
        OrderEvent.objects.record([order.pk], Kind.REFUND_WANTED, detail=f"by {by}")
    return True


def refund(order_id: int) -> bool:
    """Refund the order, if requested; True if this call ended it.

    Raises `TemporaryError` if the outcome is unknown: the retry uses the same key.
    """
    wanted = Payment.objects.refund_wanted().filter(order=order_id).select_related("order")
    claimed = Payment.objects.claim(first=wanted)
    if not claimed:
        log.info("Order %s: no refund is requested", Order.objects.filter(pk=order_id).first() or order_id)
        return False
    (payment,) = claimed
    # Until its task ends, perhaps in another attempt.
    bind_contextvars(order=payment.order.reference)
    try:
        with trace.call(payments.REFUND, payment.order):
            refund_id = payments.refund(payment)
    except TemporaryError as error:
        if payment.held().exists():
            OrderEvent.objects.record([order_id], Kind.RETRY, detail=f"Refund: {error}")
        raise
    except PermanentError as error:
        fail_refund(payment, str(error))
        return False
    return settle_refund(payment, refund_id)


@transaction.atomic
def settle_refund(payment: Payment, refund_id: str) -> bool:
    """End the refund that this worker holds; False if it has ended, or another worker holds it."""
    lock([payment.order_id])
    return payment.held().exists() and end_refund(payment, payment.provider_id, refund_id)


def end_refund(payment: Payment, provider_id: str, refund_id: str) -> bool:
    """End the locked order as refunded and put its goods back on sale; False when that was done before.

    The goods go back because this shop refunds what has not left it. What a customer sends back is counted in by
    hand, in the admin.
    """
    order = Order.objects.filter(pk=payment.order_id)
    # A confirmation that was not sent by now would only confuse.
    if not order.move(Status.REFUNDED, **MAIL.ended()):
        return False
    release([payment.order_id])
    payment.mark_refunded(provider_id, refund_id)
    return True


@transaction.atomic
def fail_refund(payment: Payment, reason: str) -> None:
    """End a refund that the provider refuses; staff can request another one, with a new key."""
    lock([payment.order_id])
    if payment.mark_refund_refused(reason):
        Order.objects.filter(pk=payment.order_id).flag(reason)


# --- Webhooks of the provider ---


@transaction.atomic
def record(notice: payments.Notice) -> list[int]:
    """Record a webhook as the task would record an answer; return the completed orders.

    Task and webhook use the same compare-and-set updates of the same row: the second one changes nothing.
    """
    payment = find_payment(notice)
    if payment is None:
        log.warning("Webhook %s is about a payment of another shop: %s", notice.event_id, notice.provider_id)
        return []
    bind_contextvars(order=payment.order.reference)
    lock([payment.order_id])
    payment.refresh_from_db(fields=["status", "provider_id"])
    with recorded_by(notice.event_id):
        if notice.news == payments.News.CHARGED:
            return settle_all(
                {payment: payments.outcome_of(notice, payment)}, Order.objects.filter(pk=payment.order_id)
            )
        record_refund(payment, notice)
    return []


def find_payment(notice: payments.Notice) -> Payment | None:
    """Find the payment by the provider's id, or by its metadata if the id is not on record yet."""
    known = Payment.objects.select_related("order")
    told = known.filter(order__reference=notice.order, attempt=notice.attempt)
    return known.filter(provider_id=notice.provider_id).first() or told.first()


def record_refund(payment: Payment, notice: payments.Notice) -> None:
    """Record a refund; a refund of a stray charge does not change the order."""
    order = Order.objects.filter(pk=payment.order_id)
    if notice.news == payments.News.REFUND_FAILED:
        order.flag(f"The refund {notice.refund_id} has failed at the bank.")
    elif payment.status not in ALIVE or payment.provider_id not in ("", notice.provider_id):
        log.info("Webhook %s: nothing to refund for order %s", notice.event_id, payment.order)
    elif notice.news == payments.News.PARTLY_REFUNDED:
        of = money.text(payment.amount, payment.currency)
        order.flag(f"The provider has refunded {notice.amount} of {of}.")
    else:
        end_refund(payment, notice.provider_id, notice.refund_id)


# --- Handing to a person ---


def give_up_old_orders() -> list[str]:
    """Flag orders that workers must no longer retry; return the references of newly flagged ones."""
    reason = "Open for more than a day. Look for its charge at the provider before you queue it again."
    return Order.objects.due().for_person().flag(reason) + give_up_old_refunds()


@transaction.atomic
def give_up_old_refunds() -> list[str]:
    wanted_before = timezone.now() - settings.ORDER_GIVEN_UP_AFTER
    old = Payment.objects.due().filter(refund_wanted_at__lte=wanted_before)
    orders = list(old.values_list("order", flat=True))
    lock(orders)
    old.filter(order__in=orders).update(**Payment.lease.ended())
    return Order.objects.filter(pk__in=orders).flag("Its refund got no answer for a day. Ask for it once more.")
