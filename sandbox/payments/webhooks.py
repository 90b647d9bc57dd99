"""Stripe's webhooks: stored with the object they report, signed, and retried until they are accepted."""

import asyncio
import hashlib
import hmac
import json
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from ..faults import Fault
from ..pages import Page
from ..world import World, logger
from . import ledger
from .ledger import Answer
from .objects import Described, as_charge, as_intent, as_refund

SCHEMA = """
CREATE TABLE IF NOT EXISTS webhooks (
    number INTEGER PRIMARY KEY,
    event TEXT NOT NULL,
    type TEXT NOT NULL,
    body TEXT NOT NULL,
    due REAL,
    held INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    answer TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS webhooks_by_due ON webhooks (due) WHERE due IS NOT NULL;
"""
FAULTS = (
    Fault("webhook_doubled", "Sends a webhook twice."),
    Fault("webhook_late", "Delays a webhook by so many seconds.", seconds=20.0),
    Fault("webhook_out_of_order", "Holds a webhook until a later one is sent, or for so many seconds.", seconds=20.0),
    Fault("webhook_lost", "Never sends a webhook."),
)
ANSWER_SECONDS = 10
# The backoff doubles from one second to this maximum; so many attempts take about a day.
MAX_PAUSE, MAX_ATTEMPTS = 3600, 36


def add(database: sqlite3.Connection, answer: Answer) -> list[int]:
    """Store the webhooks for a new object, in the transaction that creates it."""
    events = _events(database, answer) if answer.status == 200 else []
    return [_add(database, kind, described) for kind, described in events]


def _events(database: sqlite3.Connection, answer: Answer) -> list[tuple[str, Described]]:
    if answer.object_id.startswith("pi_"):
        row = ledger.one(database.execute("SELECT * FROM charges WHERE id = ?", (answer.object_id,)))
        return [("payment_intent.succeeded", as_intent(row))]
    refund = ledger.one(database.execute(ledger.ONE_REFUND, (answer.object_id,)))
    charge = ledger.one(database.execute("SELECT * FROM charges WHERE id = ?", (refund["payment_intent"],)))
    return [("charge.refunded", as_charge(charge)), ("refund.updated", as_refund(refund))]


def _add(database: sqlite3.Connection, kind: str, described: Described) -> int:
    event, now = f"evt_{secrets.token_hex(12)}", time.time()
    body = {"id": event, "object": "event", "type": kind, "created": int(now), "livemode": False}
    row = (event, kind, json.dumps({**body, "data": {"object": described}}), now)
    database.execute("INSERT INTO webhooks (event, type, body, due) VALUES (?, ?, ?, ?)", row)
    return int(ledger.one(database.execute("SELECT last_insert_rowid() AS number"))["number"])


def let_faults_strike(world: World, number: int, strikes: Callable[[str], bool]) -> None:
    """Duplicate, delay, hold back or lose a webhook. It must not await, or the sender could send it meanwhile."""
    if strikes("webhook_late"):
        _postpone(world, number, world.faults.seconds("webhook_late"), held=False)
    if strikes("webhook_out_of_order"):
        _postpone(world, number, world.faults.seconds("webhook_out_of_order"), held=True)
    if strikes("webhook_doubled"):
        columns = "event, type, body, due, held"
        world.database.execute(
            f"INSERT INTO webhooks ({columns}) SELECT {columns} FROM webhooks WHERE number = ?",  # noqa: S608
            (number,),
        )
    if strikes("webhook_lost"):
        world.database.execute("UPDATE webhooks SET due = NULL, answer = 'lost' WHERE number = ?", (number,))


def _postpone(world: World, number: int, seconds: float, *, held: bool) -> None:
    world.database.execute(
        "UPDATE webhooks SET due = due + ?, held = max(held, ?) WHERE number = ?", (seconds, held, number)
    )


async def send_all(world: World) -> None:
    """Send due webhooks forever; those that are still unsent survive a restart."""
    while world.webhook_url:
        row = ledger.first(world.database.execute("SELECT * FROM webhooks WHERE due NOT NULL ORDER BY due LIMIT 1"))
        wait = 60.0 if row is None else row["due"] - time.time()
        if row is not None and wait <= 0:
            await _send(world, row)
            continue
        world.webhook_news.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(world.webhook_news.wait(), min(wait, 60))


async def _send(world: World, row: sqlite3.Row) -> None:
    answer = await _post(world, row["body"])
    logger.info("webhook %s (%s): %s", row["event"], row["type"], answer)
    done = answer.startswith("2") or row["attempts"] + 1 >= MAX_ATTEMPTS
    due = None if done else time.time() + min(2.0 ** row["attempts"], MAX_PAUSE)
    world.database.execute(
        "UPDATE webhooks SET due = ?, attempts = attempts + 1, answer = ? WHERE number = ?",
        (due, answer, row["number"]),
    )
    overtaken = "UPDATE webhooks SET due = ?, held = 0 WHERE held AND due NOT NULL AND number < ?"
    world.database.execute(overtaken, (time.time(), row["number"]))


async def _post(world: World, body: str) -> str:
    """Return the status code of the shop's answer, or the error."""
    headers = {"Content-Type": "application/json", "Stripe-Signature": sign(body, world.webhook_secret)}
    request = HTTPRequest(
        world.webhook_url, "POST", headers, body, request_timeout=ANSWER_SECONDS, follow_redirects=False
    )
    try:
        return str((await AsyncHTTPClient().fetch(request, raise_error=False)).code)
    except (OSError, HTTPClientError) as error:
        return f"no answer ({type(error).__name__})"


def sign(body: str, secret: str) -> str:
    now = int(time.time())
    signature = hmac.new(secret.encode(), f"{now}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={now},v1={signature}"


class WebhooksAsJson(Page):
    def get(self) -> None:
        rows = self.world.database.execute("SELECT * FROM webhooks ORDER BY number DESC LIMIT 1000").fetchall()
        self.write_json({"url": self.world.webhook_url, "webhooks": [_shown(row) for row in rows]})


def _shown(row: sqlite3.Row) -> dict[str, Any]:
    return dict(row) | {"body": json.loads(row["body"])}
