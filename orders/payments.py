"""The payment provider: one function for each of its verbs. Minor units exist in this file only."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import cache

import stripe
from django.conf import settings

from myproject.errors import PermanentError, TemporaryError

from .models import Payment

# Charges of one set that wait for the provider side by side.
SIDE_BY_SIDE = 16
# Currencies without a minor unit, of those that the provider knows (stripe.com/docs/currencies).
WITHOUT_MINOR_UNIT = {"JPY", "KRW", "VND", "CLP"}

Outcome = str | PermanentError | TemporaryError


class Declined(PermanentError):
    """The bank said no; the customer may try another card."""


def charge_all(payments: Sequence[Payment]) -> list[Outcome]:
    """Charge the payments side by side; return for each its provider id, or the error that it ended with."""
    with ThreadPoolExecutor(max_workers=min(SIDE_BY_SIDE, max(len(payments), 1))) as pool:
        return list(pool.map(_outcome, payments))


def charge(payment: Payment) -> str:
    """Charge the card and return the provider's id.

    May be repeated: the provider answers for a key it knows what it answered before. Raises `Declined`,
    `PermanentError`, or `TemporaryError` where it is unknown whether money has moved.
    """
    try:
        intent = _client().v1.payment_intents.create(
            {
                "amount": _minor_units(payment.amount, payment.currency),
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
    except (stripe.InvalidRequestError, stripe.IdempotencyError) as error:
        raise PermanentError(f"The payment provider refused the request: {error.user_message}") from error
    except stripe.StripeError as error:
        raise TemporaryError(f"The payment provider did not answer ({type(error).__name__}).") from error
    if intent.status != "succeeded":
        # No money has moved: the bank wants to see the customer, and this shop sends nobody to a bank.
        raise Declined("Your bank wants to confirm this payment itself. Please use another card.")
    return intent.id


def _outcome(payment: Payment) -> Outcome:
    try:
        return charge(payment)
    except (TemporaryError, PermanentError) as error:
        return error


@cache
def _client() -> stripe.StripeClient:
    base = settings.STRIPE_API_BASE
    return stripe.StripeClient(
        settings.STRIPE_API_KEY,
        base_addresses={"api": base} if base else {},
        http_client=stripe.RequestsClient(timeout=settings.STRIPE_TIMEOUT_SECONDS),
        # The task repeats, with backoff, and shows each repetition on the order's time line.
        max_network_retries=0,
    )


def _minor_units(amount: Decimal, currency: str) -> int:
    return int(amount if currency in WITHOUT_MINOR_UNIT else amount * 100)
