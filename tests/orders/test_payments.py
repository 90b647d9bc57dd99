"""The client against a tiny real HTTP server: only what stands at the other end of the socket is ours."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from durable.errors import PermanentError, TemporaryError
from orders import payments
from orders.models import Card, Payment
from tests.factories import make_product, place_order

pytestmark = pytest.mark.django_db

SUCCEEDED = (200, {"id": "pi_1", "object": "payment_intent", "status": "succeeded"})
REQUIRES_ACTION = (200, {"id": "pi_2", "object": "payment_intent", "status": "requires_action"})


def refusal(status: int, kind: str, message: str = "No.", **fields: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"type": kind, "message": message, **fields}}


class Provider(ThreadingHTTPServer):
    """Gives the same answer to everybody, and remembers the requests; no answer at all where it is None."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: tuple[int, dict[str, Any]] | None = SUCCEEDED
        self.requests: list[tuple[str, str, dict[str, str]]] = []


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.server.requests.append((self.path, self.headers["Idempotency-Key"], form))
        if self.server.answer is not None:
            status, answer = self.server.answer
            if "amount" in form:
                answer = {"amount_received": int(form["amount"]), "currency": form["currency"]} | answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *args: object) -> None:
        """Say nothing: the tests read `requests`."""


@pytest.fixture
def provider(settings: Settings) -> Iterator[Provider]:
    with Provider() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        settings.STRIPE_API_BASE = f"http://127.0.0.1:{server.server_port}"
        payments._client.cache_clear()
        yield server
        server.shutdown()
    payments._client.cache_clear()


@pytest.fixture
def payment() -> Payment:
    return place_order(product=make_product(price=Decimal("12.50")), quantity=3).payments.get()


def test_charge_asks_for_the_amount_in_minor_units_with_the_key_of_the_attempt(
    provider: Provider, payment: Payment
) -> None:
    charged = payments.charge(payment)

    assert charged == payments.Charged("pi_1")
    assert provider.requests == [
        (
            "/v1/payment_intents",
            str(payment.key),
            {
                "amount": "3750",
                "currency": "eur",
                "payment_method": Card.VISA,
                "automatic_payment_methods[enabled]": "true",
                "automatic_payment_methods[allow_redirects]": "never",
                "confirm": "true",
                "metadata[order]": payment.order.reference,
                "metadata[attempt]": "1",
            },
        )
    ]


def test_charge_sends_the_same_key_when_it_is_repeated(provider: Provider, payment: Payment) -> None:
    payments.charge(payment)
    payments.charge(Payment.objects.get(pk=payment.pk))

    assert [key for _, key, _ in provider.requests] == [str(payment.key)] * 2


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (refusal(402, "card_error", "Your card was declined."), payments.Declined, "^Your card was declined.$"),
        (REQUIRES_ACTION, payments.Declined, "Your bank wants to confirm this payment itself"),
        (refusal(400, "invalid_request_error", "No such card."), PermanentError, "refused the request: No such card."),
        (refusal(404, "invalid_request_error"), PermanentError, "refused the request"),
        (refusal(400, "idempotency_error", "Other amount."), TemporaryError, "did not answer"),
        (refusal(409, "idempotency_error", "Key in use."), TemporaryError, "did not answer"),
        (refusal(429, "rate_limit_error"), TemporaryError, "did not answer"),
        (refusal(401, "authentication_error"), TemporaryError, "did not answer"),
        (refusal(500, "api_error"), TemporaryError, "did not answer"),
        (refusal(503, "api_error"), TemporaryError, "did not answer"),
        (None, TemporaryError, "did not answer"),
    ],
)
def test_charge_maps_the_answer_to_our_errors(
    answer: tuple[int, dict[str, Any]] | None,
    error: type[Exception],
    message: str,
    provider: Provider,
    payment: Payment,
) -> None:
    provider.answer = answer

    with pytest.raises(error, match=message) as raised:
        payments.charge(payment)

    assert type(raised.value) is error
    assert len(provider.requests) == 1


def test_charge_is_temporary_when_the_provider_is_down(provider: Provider, payment: Payment) -> None:
    provider.server_close()

    with pytest.raises(TemporaryError, match="did not answer"):
        payments.charge(payment)


def test_charge_is_temporary_when_the_provider_does_not_answer_in_time(settings: Settings, payment: Payment) -> None:
    settings.STRIPE_TIMEOUT_SECONDS = 0.5

    # It takes the connection and says nothing; its end comes before that of the thread, which it sets free.
    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", 0)) as frozen:
        settings.STRIPE_API_BASE = f"http://127.0.0.1:{frozen.getsockname()[1]}"
        payments._client.cache_clear()
        outcome = pool.submit(payments._outcome, payment).result(timeout=10)

    payments._client.cache_clear()
    assert isinstance(outcome, TemporaryError)


def test_charge_all_answers_for_each_payment_in_its_place(provider: Provider) -> None:
    started = [place_order().payments.select_related("order").get() for _ in range(20)]

    outcomes = payments.charge_all(started)

    assert outcomes == [payments.Charged("pi_1")] * 20
    assert {key for _, key, _ in provider.requests} == {str(payment.key) for payment in started}


def test_charge_all_returns_errors_instead_of_raising_them(provider: Provider, payment: Payment) -> None:
    provider.answer = refusal(402, "card_error", "No.")

    outcomes = payments.charge_all([payment])

    assert [(type(outcome), str(outcome)) for outcome in outcomes] == [(payments.Declined, "No.")]


def test_charge_all_sends_no_request_when_nothing_is_to_be_charged(provider: Provider) -> None:
    assert payments.charge_all([]) == []
    assert provider.requests == []


@pytest.mark.parametrize("since", ["2026-11-28T03:00", "0001-01-01", "9999-12-31T23:59"])
def test_reconcile_says_in_one_line_that_the_provider_does_not_answer(since: str, provider: Provider) -> None:
    provider.shutdown()
    provider.server_close()

    with pytest.raises(CommandError, match="did not answer") as told:
        call_command("reconcile", since)

    assert "Run this again" in str(told.value)
