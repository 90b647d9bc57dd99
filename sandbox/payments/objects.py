"""Stripe's objects, as its API shows them."""

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from .cards import CARDS

Described = dict[str, Any]


def as_list(url: str, rows: list[sqlite3.Row], limit: int, describe: Callable[[sqlite3.Row], Described]) -> Described:
    """Return a page of objects; the query fetched one row more, which only sets `has_more`."""
    shown = rows[: limit - 1]
    return {"object": "list", "url": url, "has_more": len(rows) == limit, "data": [describe(row) for row in shown]}


def as_intent(row: sqlite3.Row) -> Described:
    """Show a charge as Stripe's payment intent."""
    declined = row["status"] == "declined"
    return {
        "id": row["id"],
        "object": "payment_intent",
        "amount": row["amount"],
        "amount_capturable": 0,
        "amount_received": 0 if declined else row["amount"],
        "capture_method": "automatic",
        "client_secret": None,
        "confirmation_method": "automatic",
        "created": row["created"],
        "currency": row["currency"],
        "description": row["description"],
        "last_payment_error": decline_of(row) if declined else None,
        "latest_charge": row["charge"],
        "livemode": False,
        "metadata": json.loads(row["metadata"]),
        "next_action": None,
        "payment_method": None if declined else row["payment_method"],
        "payment_method_types": ["card"],
        "status": "requires_payment_method" if declined else "succeeded",
    }


def as_charge(row: sqlite3.Row) -> Described:
    """Show a successful charge."""
    return {
        "id": row["charge"],
        "object": "charge",
        "amount": row["amount"],
        "amount_captured": row["amount"],
        "amount_refunded": row["refunded"],
        "captured": True,
        "created": row["created"],
        "currency": row["currency"],
        "description": row["description"],
        "livemode": False,
        "metadata": json.loads(row["metadata"]),
        "paid": True,
        "payment_intent": row["id"],
        "payment_method": row["payment_method"],
        "refunded": row["refunded"] == row["amount"],
        "status": "succeeded",
    }


def decline_of(row: sqlite3.Row) -> Described:
    card = CARDS[row["payment_method"]]
    return {
        "type": "card_error",
        "code": card.code,
        "decline_code": card.decline_code,
        "message": card.message,
        "charge": row["charge"],
        "payment_method": {"id": row["payment_method"], "object": "payment_method", "type": "card"},
    }


def as_refund(row: sqlite3.Row) -> Described:
    return {
        "id": row["id"],
        "object": "refund",
        "amount": row["amount"],
        "charge": row["charge"],
        "created": row["created"],
        "currency": row["currency"],
        "metadata": json.loads(row["metadata"]),
        "payment_intent": row["payment_intent"],
        "reason": row["reason"],
        "status": "succeeded",
    }
