"""What the provider says by itself, before, after, beside and instead of its answer to the task."""

import json
import logging
import time
from threading import Event
from typing import Any
from unittest.mock import patch

import pytest
from django.conf import settings
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from stripe import WebhookSignature

from durable.errors import TemporaryError
from orders import payments, services
from orders.models import Order, Payment, Status
from tests.broker import Broker
from tests.factories import make_product, place_order, put
from tests.orders.test_services import Provider, at_once, kinds, process, reserve_and_process, status_of, stock_of
from tests.shop import SECONDS, is_somebody_waiting, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

URL = "/webhooks/payments/"
PROVIDER_ID = "pi_1"
CHARGED = payments.Charged(PROVIDER_ID)


@pytest.fixture
def order() -> Order:
    """An order of three, of which there were ten, that waits for the answer to its charge."""
    order = place_order(product=make_product(stock=10), quantity=3)
    services.reserve([order.pk])
    return order


def stock_left(order: Order) -> int:
    return stock_of(order.items.get().product)


def intent(order: Order, **fields: Any) -> dict[str, Any]:
    metadata = {"order": order.reference, "attempt": "1"}
    thing = {"id": PROVIDER_ID, "object": "payment_intent", "amount_received": 3750, "currency": "eur"}
    return event("payment_intent.succeeded", thing | {"metadata": metadata} | fields)


def refunded_charge(order: Order, **fields: Any) -> dict[str, Any]:
    metadata = {"order": order.reference, "attempt": "1"}
    thing = {"id": "ch_1", "payment_intent": PROVIDER_ID, "amount_refunded": 3750, "currency": "eur", "refunded": True}
    return event("charge.refunded", thing | {"metadata": metadata} | fields)


def refund(order: Order, status: str = "succeeded", **fields: Any) -> dict[str, Any]:
    metadata = {"order": order.reference, "attempt": "1"}
    thing = {"id": "re_1", "payment_intent": PROVIDER_ID, "amount": 3750, "currency": "eur", "status": status}
    return event("refund.updated", thing | {"metadata": metadata} | fields)


def event(kind: str, thing: object) -> dict[str, Any]:
    return {"id": "evt_1", "object": "event", "type": kind, "data": {"object": thing}}


def send(said: object, *, secret: str = "", at: float | None = None, signature: str | None = None) -> HttpResponse:
    """Post it as the provider does; with CSRF checks on, as the provider has no cookie."""
    body = said if isinstance(said, str) else json.dumps(said)
    signed = WebhookSignature.generate_signature_header(
        body, secret or settings.STRIPE_WEBHOOK_SECRET, int(at or time.time())
    )
    headers = {"Stripe-Signature": signed if signature is None else signature}
    answer: Any = Client(enforce_csrf_checks=True).post(URL, body, content_type="application/json", headers=headers)
    return answer


def settle(order: Order, outcome: payments.Outcome = CHARGED) -> list[int]:
    """Write down the provider's answer, as the task does."""
    return services.settle({order.payments.get(): outcome}, Order.objects.filter(pk=order.pk))


# --- Charges ---


@pytest.mark.django_db(transaction=True)
def test_webhook_completes_the_order_when_the_answer_was_lost(order: Order, broker: Broker) -> None:
    answer = send(intent(order))

    payment = order.payments.get()
    assert (answer.status_code, status_of(order), stock_left(order)) == (200, Status.COMPLETED, 7)
    assert (payment.status, payment.provider_id) == ("succeeded", PROVIDER_ID)
    assert order.events.get(kind="completed").origin == "webhook evt_1"
    assert broker.messages() == [("mail", "orders.tasks.send_order_confirmation", {"order_id": order.pk})]


@pytest.mark.parametrize("first", ["task", "webhook"])
def test_task_and_webhook_agree_in_either_order(first: str, order: Order) -> None:
    steps = [lambda: settle(order), lambda: send(intent(order))]

    for step in steps if first == "task" else reversed(steps):
        step()

    order.refresh_from_db()
    assert (order.status, stock_left(order), order.flagged_at) == (Status.COMPLETED, 7, None)
    assert kinds(order) == ["placed", "processing", "completed"]


def test_task_notes_no_silence_when_the_webhook_has_told_the_outcome(order: Order) -> None:
    send(intent(order))

    settle(order, TemporaryError("The payment provider did not answer."))

    assert kinds(order) == ["placed", "processing", "completed"]


def test_webhook_twice_is_once(order: Order) -> None:
    answers = [send(intent(order)).status_code for _ in range(3)]

    assert (answers, kinds(order)) == ([200, 200, 200], ["placed", "processing", "completed"])


@pytest.mark.parametrize("round_number", range(3))
@pytest.mark.django_db(transaction=True)
def test_task_and_webhooks_agree_when_they_race(round_number: int, order: Order, broker: Broker) -> None:
    with patch.object(payments, "charge_all", Provider(CHARGED).charge_all):
        at_once(
            *[lambda: str(reserve_and_process([order.pk]))] * 2,
            *[lambda: str(send(intent(order)).status_code)] * 2,
        )

    assert (status_of(order), stock_left(order)) == (Status.COMPLETED, 7)
    assert kinds(order) == ["placed", "processing", "completed"]
    assert len(broker.messages()) <= 1


@pytest.mark.parametrize("wrong", [{"amount_received": 3749}, {"amount_received": 375000}, {"currency": "usd"}])
def test_webhook_of_a_wrong_amount_completes_nothing_and_is_flagged(wrong: dict[str, Any], order: Order) -> None:
    answers = [send(intent(order, **wrong)).status_code for _ in range(2)]

    order.refresh_from_db()
    assert (answers, order.status) == ([200, 200], Status.PROCESSING)
    assert "instead of €37.50" in order.flag_reason
    assert (order.payments.get().status, kinds(order)) == ("mismatched", ["placed", "processing", "flagged"])


@pytest.mark.django_db(transaction=True)
def test_task_that_waited_for_the_webhook_of_a_wrong_amount_completes_nothing(order: Order) -> None:
    told = Event()

    def webhook() -> list[int]:
        with transaction.atomic():
            send(intent(order, amount_received=3749))
            told.set()
            wait_for(is_somebody_waiting, "the task to wait for the order")
        return []

    def task() -> list[int]:
        told.wait(SECONDS)
        return settle(order)

    assert at_once(webhook, task) == [[], []]

    assert (status_of(order), order.payments.get().status) == (Status.PROCESSING, "mismatched")


def test_webhook_of_a_second_charge_is_flagged_once(order: Order) -> None:
    settle(order)

    for _ in range(2):
        send(intent(order, id="pi_2"))

    order.refresh_from_db()
    assert "pi_2" in order.flag_reason
    assert kinds(order) == ["placed", "processing", "completed", "flagged"]


def test_webhook_of_a_charge_is_flagged_when_the_order_had_ended(order: Order) -> None:
    settle(order, payments.Declined("No."))

    send(intent(order))

    order.refresh_from_db()
    assert (order.status, bool(order.flagged_at)) == (Status.PAYMENT_FAILED, True)


@pytest.mark.parametrize(
    "metadata", [{}, {"order": "AAAA-AAAA", "attempt": "1"}, {"order": "\0", "attempt": "9" * 99}, {"order": 7}]
)
def test_webhook_of_somebody_else_s_payment_is_ignored(metadata: dict[str, Any], order: Order) -> None:
    answer = send(intent(order, metadata=metadata))

    assert (answer.status_code, kinds(order)) == (200, ["placed", "processing"])


# --- Refunds ---


@pytest.mark.parametrize("said", [refunded_charge, refund])
def test_webhook_of_a_refund_ends_the_order_once(said: Any, order: Order) -> None:
    settle(order)

    for _ in range(2):
        send(said(order))

    assert (status_of(order), stock_left(order)) == (Status.REFUNDED, 10)
    assert kinds(order) == ["placed", "processing", "completed", "refunded"]


def test_webhooks_agree_when_the_refund_comes_before_the_charge(order: Order) -> None:
    send(refunded_charge(order))
    send(intent(order))
    late = settle(order)

    order.refresh_from_db()
    assert (late, order.status, stock_left(order), order.flagged_at) == ([], Status.REFUNDED, 10, None)
    assert order.payments.get().status == "refunded"


@pytest.mark.parametrize("first", ["task", "webhook"])
def test_task_and_webhook_agree_on_a_refund_in_either_order(first: str, order: Order) -> None:
    settle(order)
    services.want_refund(order, by="Sam")

    def task() -> object:
        with patch.object(payments, "refund", return_value="re_1"):
            return services.refund(order.pk)

    steps = [task, lambda: send(refund(order))]
    for step in steps if first == "task" else reversed(steps):
        step()

    assert (status_of(order), stock_left(order), kinds(order).count("refunded")) == (Status.REFUNDED, 10, 1)
    assert not Payment.objects.refund_wanted().exists()


def test_webhook_of_a_refund_in_part_is_flagged(order: Order) -> None:
    settle(order)

    send(refunded_charge(order, refunded=False, amount_refunded=1000))

    order.refresh_from_db()
    assert (order.status, order.flag_reason) == (
        Status.COMPLETED,
        "The provider has refunded €10.00 of €37.50.",
    )


def test_webhook_of_a_refund_that_failed_later_is_flagged(order: Order) -> None:
    settle(order)
    send(refund(order))

    send(refund(order, status="failed"))

    order.refresh_from_db()
    assert (order.status, order.flag_reason) == (Status.REFUNDED, "The refund re_1 has failed at the bank.")


def test_webhook_of_another_charge_s_refund_leaves_the_order_alone(order: Order) -> None:
    settle(order)

    send(refunded_charge(order, payment_intent="pi_2"))

    assert (status_of(order), stock_left(order)) == (Status.COMPLETED, 7)


def test_webhook_of_a_declined_attempt_s_refund_leaves_the_next_one_alone(order: Order) -> None:
    settle(order, payments.Declined("No."))
    services.pay_again(order, "pm_card_visa")
    process(order, outcome=payments.Charged("pi_2"))

    send(refunded_charge(order))

    assert status_of(order) == Status.COMPLETED


# --- What is not from the provider ---


def test_webhook_is_refused_when_the_signature_is_wrong(order: Order, caplog: pytest.LogCaptureFixture) -> None:
    answer = send(intent(order), secret="whsec_another")

    lines = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
    assert (answer.status_code, kinds(order)) == (400, ["placed", "processing"])
    assert lines == [f"Webhook refused, its signature is missing, wrong or old: {URL}"]


@pytest.mark.parametrize("signature", ["", "rubbish", "t=1", "t=x,v1=y", "v1=abc", "t=1,v1=é", "t=" + "9" * 5000])
def test_webhook_is_refused_when_the_signature_is_rubbish(signature: str, order: Order) -> None:
    assert send(intent(order), signature=signature).status_code == 400


@pytest.mark.parametrize(
    ("age", "status"), [(290, 200), (310, 400), (86_400, 400), (-290, 200), (-310, 400), (-86_400, 400)]
)
def test_webhook_is_refused_when_it_is_old_or_of_the_future(age: int, status: int, order: Order) -> None:
    assert send(intent(order), at=time.time() - age).status_code == status


def test_webhook_is_refused_when_the_body_was_changed(order: Order) -> None:
    signature = WebhookSignature.generate_signature_header(json.dumps(intent(order)), settings.STRIPE_WEBHOOK_SECRET)

    answer = send(intent(order, amount_received=1), signature=signature)

    assert (answer.status_code, status_of(order)) == (400, Status.PROCESSING)


def test_webhook_is_refused_when_no_secret_is_set(order: Order, settings: Any) -> None:
    settings.STRIPE_WEBHOOK_SECRET = ""

    assert send(intent(order), secret="any").status_code == 400


@pytest.mark.parametrize(
    "said",
    [
        "",
        "rubbish",
        "[]",
        "null",
        "7",
        "{}",
        '{"object": "v2.core.event"}',
        {"type": "payment_intent.succeeded"},
        event("payment_intent.succeeded", {}),
        event("payment_intent.succeeded", []),
        event("payment_intent.succeeded", {"id": 7, "amount_received": 1, "currency": "eur", "metadata": {}}),
        event("payment_intent.succeeded", {"id": "x", "amount_received": "?", "currency": "eur", "metadata": {}}),
        event("payment_intent.succeeded", {"id": "x", "amount_received": 1, "currency": None, "metadata": {}}),
        event("charge.refunded", {"refunded": True}),
        event("refund.updated", {}),
        event("refund.updated", {"metadata": {"order": "x"}, "status": []}),
        pytest.param("[" * 200_000 + "]" * 200_000, id="nested deeply"),
        pytest.param('{"a":' * 100_000 + "1" + "}" * 100_000, id="objects nested deeply"),
    ],
)
def test_webhook_of_rubbish_is_refused_although_it_is_signed(said: object) -> None:
    assert send(said).status_code == 400


@pytest.mark.parametrize("say", [intent, refunded_charge, refund])
@pytest.mark.parametrize("wrong", [10**29, 10**4000, -1, float("inf"), float("nan"), "eur\0", "", "€", "e" * 500])
def test_webhook_of_an_amount_that_cannot_be_is_refused(say: Any, wrong: Any, order: Order) -> None:
    amount = {intent: "amount_received", refunded_charge: "amount_refunded", refund: "amount"}[say]

    answer = send(say(order, **{"currency" if isinstance(wrong, str) else amount: wrong}))

    assert (answer.status_code, status_of(order)) == (400, Status.PROCESSING)


def test_webhook_of_an_unknown_kind_is_ignored_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    answer = send(event("customer.created", {"id": "cus_1"}))

    assert answer.status_code == 200
    assert [line.getMessage() for line in caplog.records if line.name.startswith("orders")] == [
        "Webhook evt_1 says nothing to us: customer.created",
    ]


@pytest.mark.parametrize(
    "said",
    [
        event("refund.updated", {"metadata": None}),
        event("charge.refunded", {"payment_intent": None, "metadata": {}}),
        event("refund.updated", {"metadata": {"order": "x"}, "status": "pending"}),
    ],
)
def test_webhook_that_is_none_of_ours_is_ignored(said: object) -> None:
    assert send(said).status_code == 200


def test_webhook_is_for_post_only(client: Client) -> None:
    assert client.get(URL).status_code == 405


@pytest.mark.parametrize("status", Status)
def test_webhook_is_answered_whatever_became_of_the_order(status: Status) -> None:
    order = put(place_order(), status)

    answers = [send(said(order)).status_code for said in (intent, refunded_charge, refund)]

    assert answers == [200, 200, 200]
