"""The webhooks that the sandbox sends, taken by a tiny real HTTP server."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import stripe

from .conftest import Sandbox, wait_for

SECRET = "whsec_sandbox"


class Shop(ThreadingHTTPServer):
    """Answers so, and remembers what it was sent; each signature is checked as Stripe's client does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.events: list[dict[str, Any]] = []

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]


class Handler(BaseHTTPRequestHandler):
    server: Shop

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        stripe.WebhookSignature.verify_header(body, self.headers["Stripe-Signature"], SECRET, 300)
        self.server.events.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing: the tests read `events`."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def provider(tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.delenv("STRIPE_WEBHOOK_SECRET", raising=False)
    with Sandbox(tmp_path / "data", "--webhook-url", f"http://127.0.0.1:{shop.server_port}/hook") as sandbox:
        yield sandbox


def refund(provider: Sandbox, intent: Any) -> None:
    provider.client.v1.refunds.create({"payment_intent": intent.id})


def test_charge_and_refund_are_told_in_order(provider: Sandbox, shop: Shop) -> None:
    intent = provider.charge(order="A")
    refund(provider, intent)

    wait_for(lambda: len(shop.events) == 3)
    charged, refunded, updated = (event["data"]["object"] for event in shop.events)
    assert shop.kinds == ["payment_intent.succeeded", "charge.refunded", "refund.updated"]
    assert (charged["id"], charged["amount_received"], charged["metadata"]["order"]) == (intent.id, 1250, "A")
    assert (refunded["payment_intent"], refunded["amount_refunded"], refunded["refunded"]) == (intent.id, 1250, True)
    assert (updated["payment_intent"], updated["status"]) == (intent.id, "succeeded")


def test_decline_and_repetition_are_not_told(provider: Sandbox, shop: Shop) -> None:
    with pytest.raises(stripe.CardError):
        provider.charge("pm_card_visa_chargeDeclined", key="a")
    for _ in range(3):
        provider.charge(key="b")

    wait_for(lambda: shop.events)
    assert len(provider.ask("/webhooks.json")["webhooks"]) == 1


def test_webhook_is_sent_again_until_it_is_taken(provider: Sandbox, shop: Shop) -> None:
    shop.status = 500
    provider.charge()
    wait_for(lambda: len(shop.events) == 2)
    shop.status = 200

    wait_for(lambda: provider.ask("/webhooks.json")["webhooks"][0]["due"] is None)

    assert len({event["id"] for event in shop.events}) == 1
    assert provider.ask("/webhooks.json")["webhooks"][0]["answer"] == "200"


def test_webhook_outlives_the_process(provider: Sandbox, shop: Shop) -> None:
    provider.switch_on("die_after", count=1)
    with pytest.raises(stripe.APIConnectionError):
        provider.charge()
    provider.wait_for_death()

    provider.start()

    wait_for(lambda: shop.kinds == ["payment_intent.succeeded"])


def test_webhook_doubled_is_one_event_sent_twice(provider: Sandbox, shop: Shop) -> None:
    provider.switch_on("webhook_doubled", count=1)

    provider.charge()

    wait_for(lambda: len(shop.events) == 2)
    assert shop.events[0] == shop.events[1]


def test_webhook_late_comes_later(provider: Sandbox, shop: Shop) -> None:
    provider.switch_on("webhook_late", count=1, seconds=0.5)
    started = time.monotonic()

    provider.charge()

    wait_for(lambda: shop.events)
    assert time.monotonic() - started >= 0.5


def test_webhook_out_of_order_is_overtaken_by_the_next(provider: Sandbox, shop: Shop) -> None:
    provider.switch_on("webhook_out_of_order", count=1)

    refund(provider, provider.charge())

    wait_for(lambda: len(shop.events) == 3)
    assert shop.kinds[0] == "charge.refunded"
    assert "payment_intent.succeeded" in shop.kinds[1:]


def test_webhook_lost_is_never_sent(provider: Sandbox, shop: Shop) -> None:
    provider.switch_on("webhook_lost", count=1)

    lost, told = provider.charge(key="a"), provider.charge(key="b")

    wait_for(lambda: shop.events)
    assert shop.events[0]["data"]["object"]["id"] == told.id
    assert provider.ask("/webhooks.json")["webhooks"][-1]["answer"] == "lost"
    assert lost.id != told.id


def test_controls_show_the_faults_of_webhooks(provider: Sandbox) -> None:
    page = provider.fetch("/controls")[2]

    assert [name in page for name in ("webhook_doubled", "webhook_late", "webhook_out_of_order", "webhook_lost")] == (
        [True] * 4
    )


def test_no_webhook_is_kept_without_a_url(sandbox: Sandbox) -> None:
    sandbox.charge()

    assert sandbox.ask("/webhooks.json") == {"url": "", "webhooks": []}
