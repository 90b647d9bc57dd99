"""Stands in for Stripe: payment intents with test cards, refunds, and real idempotency keys."""

from ..faults import Fault
from ..world import Counterpart
from . import endpoints, ledger, pages, webhooks

COUNTERPART = Counterpart(
    title="Payments",
    summary="Stripe’s payment intents and refunds, with test cards and real idempotency keys.",
    page="/ledger",
    schema=ledger.SCHEMA + webhooks.SCHEMA,
    faults=(
        Fault("latency", "Waits before it does anything, then continues as usual.", seconds=1.0),
        Fault("refuse", "Drops the connection before it does anything."),
        Fault("error_before", "Answers 500 before charging. No money moves."),
        Fault("drop_answer", "Charges, then closes the connection without an answer."),
        Fault("error_after", "Charges, then answers 500."),
        Fault("die_after", "Charges, then the whole sandbox is killed with SIGKILL.", has_rate=False),
        *webhooks.FAULTS,
    ),
    routes=[
        (r"/v1/payment_intents", endpoints.PaymentIntents),
        (r"/v1/payment_intents/([^/]+)", endpoints.OnePaymentIntent),
        (r"/v1/refunds", endpoints.Refunds),
        (r"/v1/refunds/([^/]+)", endpoints.OneRefund),
        (r"/v1(?:/.*)?", endpoints.Unrecognized),
        (r"/webhooks\.json", webhooks.WebhooksAsJson),
        (r"/ledger", pages.LedgerPage),
        (r"/ledger\.json", pages.LedgerAsJson),
    ],
)
