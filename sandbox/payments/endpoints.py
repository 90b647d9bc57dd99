"""The Stripe endpoints that a shop needs."""

import asyncio
import hashlib
import json
import os
import secrets
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from ..currencies import money
from ..database import transaction
from ..pages import Page
from ..world import logger
from . import ledger, parameters, webhooks
from .cards import CARDS
from .ledger import Answer, NewCharge
from .objects import as_intent, as_list, as_refund
from .parameters import Parameters, Refused, invalid, missing

MAX_KEY_LENGTH = 255
# Keys of requests in progress. They may be lost with the process: what was not committed never happened.
KEYS_IN_USE: set[str] = set()

Effect = Callable[[], Answer]
Fields = list[tuple[str, str]]


class Endpoint(Page):
    """Checks the API key, applies faults, and answers with Stripe's JSON."""

    struck = ""

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Request-Id", f"req_{secrets.token_hex(7)}")
        if self.struck:
            self.set_header("Sandbox-Fault", self.struck)

    async def prepare(self) -> None:
        if self.strikes("refuse"):
            self.drop()
            return
        self.check_api_key()
        if self.strikes("latency"):
            await asyncio.sleep(self.world.faults.seconds("latency"))
        if self.strikes("error_before"):
            raise Refused(500, "api_error", "The sandbox was told to fail before charging.")

    def strikes(self, fault: str) -> bool:
        struck = self.world.faults.strikes(fault, self.request.headers.get("Sandbox-Fault", ""))
        if struck:
            self.struck = fault
            self.set_header("Sandbox-Fault", fault)
            logger.info("fault %s strikes %s %s", fault, self.request.method, self.request.path)
        return struck

    def drop(self) -> None:
        self.detach().close()

    def check_api_key(self) -> None:
        key = parameters.api_key(self.request.headers.get("Authorization", ""))
        if not key:
            raise invalid("You did not provide an API key. Send it as 'Authorization: Bearer YOUR_SECRET_KEY'.", 401)
        if not key.startswith(("sk_test_", "rk_test_")):
            # A real key that is sent here by mistake must not end up in a log.
            raise invalid("Invalid API Key provided: the sandbox takes test keys only, such as sk_test_sandbox.", 401)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        fields = {"type": "api_error", "message": f"The sandbox cannot answer this: {error}"}
        self.write_json({"error": error.error if isinstance(error, Refused) else fields})


class Unrecognized(Endpoint):
    async def prepare(self) -> None:
        self.check_api_key()
        raise invalid(f"Unrecognized request URL ({self.request.method}: {self.request.path}).", 404)


class Creating(Endpoint):
    """Creates an object by POST, once for each idempotency key."""

    async def post(self) -> None:
        key = self.request.headers.get("Idempotency-Key", "")
        fields = parse_qsl(self.request.body.decode(errors="replace"), keep_blank_values=True)
        with self.holding(key):
            remembered = ledger.recall(self.world.database, key) if key else None
            if remembered:
                self.repeat(remembered, fields)
            else:
                await self.make(key, fields)

    async def accept(self, asked: Parameters) -> Effect:
        """Check the request and return the function to run in the transaction. Raises `Refused`."""
        raise NotImplementedError

    @contextmanager
    def holding(self, key: str) -> Iterator[None]:
        """Refuse a second request with the same key while the first is in progress."""
        if len(key) > MAX_KEY_LENGTH:
            raise invalid(f"An idempotency key has at most {MAX_KEY_LENGTH} characters.")
        if key in KEYS_IN_USE:
            message = f"There is another request in progress with the idempotency key '{key}'. Try again later."
            raise invalid(message, 409, code="idempotency_key_in_use")
        if key:
            KEYS_IN_USE.add(key)
        try:
            yield
        finally:
            KEYS_IN_USE.discard(key)

    def fingerprint(self, fields: Fields) -> str:
        said = json.dumps([self.request.method, self.request.path, sorted(fields)])
        return hashlib.sha256(said.encode()).hexdigest()

    def repeat(self, remembered: sqlite3.Row, fields: Fields) -> None:
        key = remembered["key"]
        if remembered["fingerprint"] != self.fingerprint(fields):
            message = f"The idempotency key '{key}' was first used with other parameters. Use another key."
            raise Refused(400, "idempotency_error", message)
        with transaction(self.world.database):
            ledger.count_repeat(self.world.database, key)
        logger.info("answered again for key %s: %s", key, remembered["object_id"])
        self.set_header("Idempotent-Replayed", "true")
        self.deliver(remembered["http_status"], remembered["body"])

    async def make(self, key: str, fields: Fields) -> None:
        effect = await self.accept(parameters.nested(fields))
        with transaction(self.world.database):
            answer = effect()
            news = webhooks.add(self.world.database, answer) if self.world.webhook_url else []
            if key:
                ledger.remember(self.world.database, key, self.fingerprint(fields), answer)
        for number in news:
            webhooks.let_faults_strike(self.world, number, self.strikes)
        self.world.webhook_news.set()
        if self.strikes("die_after"):
            os.kill(os.getpid(), signal.SIGKILL)
        self.deliver(answer.status, answer.body)

    def deliver(self, status: int, body: str) -> None:
        if self.strikes("drop_answer"):
            self.drop()
            return
        if self.strikes("error_after"):
            raise Refused(500, "api_error", "The sandbox was told to fail after charging.")
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(body)


class PaymentIntents(Creating):
    async def accept(self, asked: Parameters) -> Effect:
        new = parameters.new_charge(asked)
        if CARDS[new.payment_method].is_slow:
            await asyncio.sleep(self.world.slow_seconds)
        return partial(charge, self.world.database, new)

    def get(self) -> None:
        find = partial(ledger.find_charge, self.world.database)
        wanted = parameters.list_parameters(self.request.query, "payment_intent", find)
        rows = self.world.database.execute(ledger.CHARGES, wanted).fetchall()
        self.write_json(as_list("/v1/payment_intents", rows, wanted["limit"], as_intent))


class OnePaymentIntent(Endpoint):
    def get(self, identifier: str) -> None:
        row = ledger.find_charge(self.world.database, identifier)
        if row is None:
            raise missing("payment_intent", identifier, 404, param="intent")
        self.write_json(as_intent(row))


class Refunds(Creating):
    async def accept(self, asked: Parameters) -> Effect:
        intent = self.charge_to_refund(asked)["id"]
        amount = parameters.whole_number(asked, "amount") if "amount" in asked else None
        reason, metadata = parameters.text(asked, "reason"), parameters.metadata_of(asked)
        return partial(refund, self.world.database, intent, amount, reason, metadata)

    def charge_to_refund(self, asked: Parameters) -> sqlite3.Row:
        name = next((name for name in ("payment_intent", "charge") if name in asked), None)
        if name is None:
            raise invalid("One of the following params should be provided: payment_intent or charge.")
        identifier = parameters.required(asked, name)
        row = ledger.find_charge(self.world.database, identifier)
        if row is None:
            raise missing(name, identifier, param=name)
        return row

    def get(self) -> None:
        find = partial(ledger.find_refund, self.world.database)
        wanted = parameters.list_parameters(self.request.query, "refund", find)
        wanted["payment_intent"] = self.get_query_argument("payment_intent", None)
        rows = self.world.database.execute(ledger.REFUNDS, wanted).fetchall()
        self.write_json(as_list("/v1/refunds", rows, wanted["limit"], as_refund))


class OneRefund(Endpoint):
    def get(self, identifier: str) -> None:
        row = ledger.find_refund(self.world.database, identifier)
        if row is None:
            raise missing("refund", identifier, 404, param="id")
        self.write_json(as_refund(row))


def charge(database: sqlite3.Connection, new: NewCharge) -> Answer:
    row = ledger.add_charge(database, new)
    intent = as_intent(row)
    if new.decline_code:
        logger.info("declined (%s) for order %s: %s", new.decline_code, new.reference, row["id"])
        error = intent["last_payment_error"] | {"payment_intent": intent}
        return Answer(402, json.dumps({"error": error}), row["id"])
    logger.info("charged %s for order %s: %s", money(new.amount, new.currency), new.reference, row["id"])
    return Answer(200, json.dumps(intent), row["id"])


def refund(
    database: sqlite3.Connection, intent: str, amount: int | None, reason: str | None, metadata: dict[str, str]
) -> Answer:
    """Refund the amount; None means the whole remainder. Raises `Refused`."""
    row = ledger.one(database.execute("SELECT * FROM charges WHERE id = ?", (intent,)))
    amount = refundable(row, amount)
    refunded = ledger.add_refund(database, intent, amount, reason, metadata)
    logger.info("refunded %s for order %s: %s", money(amount, row["currency"]), row["reference"], refunded["id"])
    return Answer(200, json.dumps(as_refund(refunded)), refunded["id"])


def refundable(row: sqlite3.Row, amount: int | None) -> int:
    """Return the amount to refund. Raises `Refused` when it exceeds what is left of the charge."""
    left, currency = row["amount"] - row["refunded"], row["currency"]
    if row["status"] == "declined":
        raise invalid(f"This PaymentIntent ({row['id']}) does not have a successful charge to refund.")
    if left == 0:
        raise invalid(f"Charge {row['charge']} has already been refunded.", code="charge_already_refunded")
    if amount is not None and amount > left:
        # Like Stripe's, this error has no code: only a fully refunded charge is "already refunded".
        asked, rest = money(amount, currency), money(left, currency)
        message = f"Refund amount ({asked}) is greater than unrefunded amount on charge ({rest})"
        raise invalid(message, param="amount")
    return left if amount is None else amount
