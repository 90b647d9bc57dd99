"""The payment provider's API: one function per call."""

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from datetime import datetime
from functools import cache
from itertools import repeat
from typing import Any, NamedTuple

import stripe
from django.conf import settings
from django.db import models
from structlog.contextvars import bound_contextvars

from durable import trace
from durable.errors import PermanentError, TemporaryError, readable

from . import money
from .models import Payment

log = logging.getLogger(__name__)

# Concurrent charges of one batch: a batch of a hundred waits for the provider twice at most, and twice its timeout is
# less than the soft time limit.
CONCURRENT_CHARGES = 50
# What the round trips are called where they are shown.
CHARGE, REFUND = "Payment provider: charge", "Payment provider: refund"


class Charged(NamedTuple):
    """The provider has the money, under this id of its own."""

    provider_id: str


class Declined(PermanentError):
    """The bank declined the card; the customer may try another one."""


class Mismatch(PermanentError):
    """The provider charged, but not what was asked for; `provider_id` says where."""

    def __init__(self, message: str, provider_id: str) -> None:
        super().__init__(message)
        self.provider_id = provider_id


Outcome = Charged | PermanentError | TemporaryError
# More than the provider ever charges; what is longer than a `Decimal` counts exactly cannot be put into words.
MOST_UNITS = 10**15
# What an answer or a webhook that lacks something shows up as; RecursionError: it is nested too deeply.
UNREADABLE = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError)


class NotGenuine(Exception):
    """A webhook that is forged, too old or unreadable; the message says which."""


class News(models.TextChoices):
    CHARGED = "charged"
    REFUNDED = "refunded"
    PARTLY_REFUNDED = "partly_refunded"
    REFUND_FAILED = "refund_failed"


class Notice(NamedTuple):
    """A webhook's news of one payment; `order` and `attempt` are "" and 0 if its metadata has none."""

    news: News
    event_id: str
    provider_id: str
    units: int
    currency: str
    order: str
    attempt: int
    refund_id: str = ""

    @property
    def amount(self) -> str:
        return _words(self.units, self.currency)


def charge_all(payments: Sequence[Payment]) -> list[Outcome]:
    """Charge the payments concurrently; return each outcome."""
    if len(payments) == 1:
        return [_outcome(payments[0])]
    # Each thread logs as this one does: a context of its own for each, since one is entered once at a time.
    contexts = [copy_context() for _ in payments]
    return list(_threads().map(Context.run, contexts, repeat(_outcome), payments))


def charge(payment: Payment) -> Charged:
    """Charge the card.

    May be repeated: the provider answers for a key it knows what it answered before. Raises `Declined`, `Mismatch`,
    `PermanentError`, or `TemporaryError` where it is unknown whether money has moved.
    """
    try:
        intent = _client().v1.payment_intents.create(
            {
                "amount": money.to_units(payment.amount, payment.currency),
                "currency": payment.currency.lower(),
                "payment_method": payment.card,
                # A card is charged or declined at once; nothing sends the customer to another site.
                "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
                "confirm": True,
                "metadata": {"order": payment.order.reference, "attempt": str(payment.attempt)},
            },
            {"idempotency_key": str(payment.key)},
        )
    except stripe.CardError as error:
        raise Declined(error.user_message or "The card was declined.") from error
    # Not the one for a key that was used with other parameters, as by a release before: that request may have charged.
    except stripe.InvalidRequestError as error:
        raise PermanentError(f"The payment provider refused the request: {error.user_message}") from error
    except stripe.StripeError as error:
        raise TemporaryError(f"The payment provider did not answer ({type(error).__name__}).") from error
    if intent.status != "succeeded":
        # No money has moved: the bank requires authentication by the customer, which this shop does not support.
        raise Declined("Your bank wants to confirm this payment itself. Please use another card.")
    return accept(payment, intent.id, intent.amount_received, intent.currency)


def accept(payment: Payment, provider_id: str, units: int, currency: str) -> Charged:
    """Accept a charge of the right amount. Raises `Mismatch`."""
    if not _is_id(provider_id):
        raise Mismatch(f"The provider charged under an id that cannot be kept: {provider_id!r}.", "")
    # The number that was sent, not an amount made of the answer: that would undo a wrong unit by the same mistake.
    if (units, currency.upper()) != (money.to_units(payment.amount, payment.currency), payment.currency):
        told, asked = _words(units, currency.upper()), money.text(payment.amount, payment.currency)
        raise Mismatch(f"The provider charged {told} instead of {asked}.", provider_id)
    return Charged(provider_id)


def refund(payment: Payment) -> str:
    """Give back all that was charged and return the provider's id of the refund, "" where it was given back before.

    May be repeated, as `charge` may. Raises `PermanentError`, or `TemporaryError` where the outcome is unknown.
    """
    try:
        refunded = _client().v1.refunds.create(
            {
                "payment_intent": payment.provider_id,
                "metadata": {"order": payment.order.reference, "attempt": str(payment.attempt)},
            },
            {"idempotency_key": str(payment.refund_key)},
        )
    except (stripe.InvalidRequestError, stripe.IdempotencyError) as error:
        if error.code == "charge_already_refunded":
            return ""
        raise PermanentError(f"The payment provider refused the refund: {error.user_message}") from error
    except stripe.StripeError as error:
        raise TemporaryError(f"The payment provider did not answer ({type(error).__name__}).") from error
    # A refund may stay "pending" for days: the provider has taken it on, and a webhook tells if the bank refuses.
    if refunded.status in ("failed", "canceled"):
        raise PermanentError(f"The refund {refunded.id} has {refunded.status}.")
    return readable(refunded.id)[:60]


# --- Reconciliation ---


def moved_since(since: datetime) -> Iterator[Notice]:
    """Ask for the charges and refunds since then, and yield each as its webhook would tell it.

    Raises `TemporaryError` where the provider does not answer, also in the middle.
    """
    try:
        yield from _moved_since(since)
    except stripe.StripeError as error:
        raise TemporaryError(f"The payment provider did not answer ({type(error).__name__}).") from error


def _moved_since(since: datetime) -> Iterator[Notice]:
    wanted: Any = {"created": {"gte": int(since.timestamp())}, "limit": 100}
    for intent in _client().v1.payment_intents.list(wanted).auto_paging_iter():
        if intent.status == "succeeded":
            yield from _told(_event(intent), News.CHARGED, intent.id, intent.amount_received)
    for refund in _client().v1.refunds.list(wanted).auto_paging_iter():
        thing = refund.to_dict()
        if thing["status"] == "succeeded":
            # Ours are always of the whole charge; what somebody refunded by hand is for a person to look at.
            news = News.REFUNDED if "order" in (thing["metadata"] or {}) else News.PARTLY_REFUNDED
            yield from _told(_event(refund), news, thing["payment_intent"], thing["amount"], thing["id"])


def _told(*what: Any) -> list[Notice]:
    """Return the notice; none of what cannot be read, such as a refund that is of no payment intent."""
    try:
        return [_notice(*what)]
    except UNREADABLE as error:
        log.warning("The provider tells of something that is not ours, or cannot be read: %r", error)
        return []


def _event(thing: stripe.StripeObject) -> dict[str, Any]:
    return {"id": thing["id"], "data": {"object": thing.to_dict()}}


# --- Webhooks ---


def read_notice(body: bytes, signature: str) -> Notice | None:
    """Read a webhook; None where it is genuine but says nothing to us. Raises `NotGenuine`."""
    try:
        event = stripe.Webhook.construct_event(
            body, signature, settings.STRIPE_WEBHOOK_SECRET, api_key=settings.STRIPE_API_KEY
        ).to_dict()
        _refuse_the_future(signature)
        return _read(event)
    except stripe.SignatureVerificationError as error:
        raise NotGenuine("its signature is missing, wrong or old") from error
    except UNREADABLE as error:
        raise NotGenuine("it cannot be read") from error


def _refuse_the_future(signature: str) -> None:
    """Raise `NotGenuine` for a date yet to come, which Stripe's library takes: it would stay valid until then."""
    signed_at = re.search(r"(?:^|,)t=(\d+)", signature)
    if signed_at and int(signed_at[1]) > time.time() + stripe.Webhook.DEFAULT_TOLERANCE:
        raise NotGenuine("its date lies in the future")


def _read(event: Mapping[str, Any]) -> Notice | None:
    kind, thing = event["type"], event["data"]["object"]
    match kind:
        case "payment_intent.succeeded":
            return _notice(event, News.CHARGED, thing["id"], thing["amount_received"])
        # A charge that no payment intent made is none of ours.
        case "charge.refunded" if thing["payment_intent"]:
            news = News.REFUNDED if thing["refunded"] else News.PARTLY_REFUNDED
            return _notice(event, news, thing["payment_intent"], thing["amount_refunded"])
        case "refund.updated" | "refund.failed" if "order" in (thing["metadata"] or {}):
            # A refund of ours. Whatever else was refunded, `charge.refunded` tells.
            states = {"succeeded": News.REFUNDED, "failed": News.REFUND_FAILED, "canceled": News.REFUND_FAILED}
            if thing["status"] in states:
                return _notice(event, states[thing["status"]], thing["payment_intent"], thing["amount"], thing["id"])
    log.info("Webhook %s says nothing to us: %s", event["id"], kind)
    return None


def _notice(event: Mapping[str, Any], news: News, provider_id: str, units: int, refund_id: str = "") -> Notice:
    thing = event["data"]["object"]
    told = thing["metadata"] or {}
    order, attempt = str(told.get("order", "")), str(told.get("attempt", ""))
    if not all(map(_is_id, (event["id"], provider_id, refund_id or "none"))):
        raise ValueError("not an id")
    currency = thing["currency"].upper()
    if not 0 <= int(units) <= MOST_UNITS or not re.fullmatch("[A-Z]{3}", currency):
        raise ValueError("not an amount")
    return Notice(
        news=news,
        event_id=event["id"],
        provider_id=provider_id,
        units=int(units),
        currency=currency,
        order=order if re.fullmatch(r"[0-9A-Z-]{1,9}", order) else "",
        attempt=int(attempt) if re.fullmatch(r"[0-9]{1,4}", attempt) else 0,
        refund_id=refund_id,
    )


def _is_id(name: str) -> bool:
    return bool(re.fullmatch(r"\w{1,60}", name, re.ASCII))


def outcome_of(notice: Notice, payment: Payment) -> Outcome:
    """Return the outcome of the payment that the provider's notice reports, as `charge` would."""
    try:
        return accept(payment, notice.provider_id, notice.units, notice.currency)
    except Mismatch as error:
        return error


def _outcome(payment: Payment) -> Outcome:
    # What the client's own lines, of a connection that is tried again, are about.
    with bound_contextvars(order=payment.order.reference):
        try:
            with trace.call(CHARGE, payment.order):
                return charge(payment)
        except (TemporaryError, PermanentError) as error:
            log.info("Attempt %s to pay: %s", payment.attempt, error)
            return error
        except UNREADABLE as error:
            # It may have charged: the same key asks again, and the rest of the batch goes on.
            log.exception("Attempt %s to pay", payment.attempt)
            return TemporaryError(f"The payment provider's answer cannot be read ({type(error).__name__}).")


@cache
def _threads() -> ThreadPoolExecutor:
    """Kept by each worker process, since each thread keeps its connection to the provider."""
    return ThreadPoolExecutor(max_workers=CONCURRENT_CHARGES, thread_name_prefix="charge")


@cache
def _client() -> stripe.StripeClient:
    base = settings.STRIPE_API_BASE
    return stripe.StripeClient(
        settings.STRIPE_API_KEY,
        base_addresses={"api": base} if base else {},
        http_client=stripe.RequestsClient(timeout=settings.STRIPE_TIMEOUT_SECONDS),
        # The task repeats, with backoff, and shows each retry on the order's timeline.
        max_network_retries=0,
    )


def _words(units: int, currency: str) -> str:
    return money.text(money.from_units(units, currency), currency)
