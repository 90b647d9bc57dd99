"""The payment provider's ledger: charges, refunds, and the answer for each idempotency key."""

import json
import secrets
import sqlite3
import time
from dataclasses import dataclass, field
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS charges (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    charge TEXT NOT NULL UNIQUE,
    amount INTEGER NOT NULL CONSTRAINT amount_is_positive CHECK (amount > 0),
    currency TEXT NOT NULL,
    payment_method TEXT NOT NULL,
    reference TEXT NOT NULL,
    description TEXT,
    metadata TEXT NOT NULL,
    decline_code TEXT NOT NULL,
    refunded INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    status TEXT GENERATED ALWAYS AS (
        CASE WHEN decline_code <> '' THEN 'declined' WHEN refunded = 0 THEN 'succeeded'
             WHEN refunded < amount THEN 'partially_refunded' ELSE 'refunded' END) VIRTUAL,
    CONSTRAINT refunded_is_within_amount CHECK (refunded BETWEEN 0 AND amount),
    CONSTRAINT declined_is_never_refunded CHECK (refunded = 0 OR decline_code = '')
);
CREATE INDEX IF NOT EXISTS charges_by_reference ON charges (reference, status);

CREATE TABLE IF NOT EXISTS refunds (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    payment_intent TEXT NOT NULL REFERENCES charges (id),
    amount INTEGER NOT NULL CONSTRAINT refund_is_positive CHECK (amount > 0),
    reason TEXT,
    metadata TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS refunds_by_payment_intent ON refunds (payment_intent);

CREATE TABLE IF NOT EXISTS idempotency_keys (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    http_status INTEGER NOT NULL,
    body TEXT NOT NULL,
    object_id TEXT NOT NULL,
    asked INTEGER NOT NULL DEFAULT 1,
    created INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS idempotency_keys_by_object ON idempotency_keys (object_id);
"""
# The first of these keys found in a charge's metadata is the order's reference.
REFERENCES = ("order", "order_reference", "order_id")

CHARGES = """
SELECT * FROM charges
WHERE number < :before AND created >= :gte AND created > :gt AND created <= :lte AND created < :lt
ORDER BY number DESC LIMIT :limit
"""
REFUNDS = """
SELECT refunds.*, charges.charge, charges.currency FROM refunds
JOIN charges ON charges.id = refunds.payment_intent
WHERE refunds.number < :before AND (:payment_intent IS NULL OR refunds.payment_intent = :payment_intent)
  AND refunds.created >= :gte AND refunds.created > :gt
  AND refunds.created <= :lte AND refunds.created < :lt
ORDER BY refunds.number DESC LIMIT :limit
"""
ONE_REFUND = """
SELECT refunds.*, charges.charge, charges.currency FROM refunds
JOIN charges ON charges.id = refunds.payment_intent WHERE refunds.id = ?
"""
LEDGER_OF_CHARGES = """
SELECT charges.*, idempotency_keys.key, coalesce(asked, 1) AS asked FROM charges
LEFT JOIN idempotency_keys ON object_id = charges.id
WHERE :order IS NULL OR reference = :order ORDER BY number DESC LIMIT :limit
"""
LEDGER_OF_REFUNDS = """
SELECT refunds.*, reference, currency, idempotency_keys.key, coalesce(asked, 1) AS asked FROM refunds
JOIN charges ON charges.id = payment_intent
LEFT JOIN idempotency_keys ON object_id = refunds.id
WHERE :order IS NULL OR reference = :order ORDER BY refunds.number DESC LIMIT :limit
"""
CHARGED_TWICE = """
SELECT reference FROM charges
WHERE reference <> '' AND status IN ('succeeded', 'partially_refunded') AND (:order IS NULL OR reference = :order)
GROUP BY reference HAVING count(*) > 1 ORDER BY max(number) DESC
"""
TOTALS = """
SELECT currency, sum(status <> 'declined') AS charges, sum(status = 'declined') AS declined,
       sum(iif(status = 'declined', 0, amount)) AS charged, sum(refunded) AS refunded,
       sum(iif(status = 'declined', 0, amount) - refunded) AS kept, sum(coalesce(asked, 1)) AS asked
FROM charges LEFT JOIN idempotency_keys ON object_id = charges.id
WHERE :order IS NULL OR reference = :order GROUP BY currency ORDER BY currency
"""


@dataclass(frozen=True)
class NewCharge:
    amount: int
    currency: str
    payment_method: str
    decline_code: str = ""
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        return next((self.metadata[name] for name in REFERENCES if name in self.metadata), "")


@dataclass(frozen=True)
class Answer:
    """The answer to a request: HTTP status, JSON, and the id of the created object."""

    status: int
    body: str
    object_id: str


def add_charge(database: sqlite3.Connection, new: NewCharge) -> sqlite3.Row:
    """Insert a charge, successful or declined, and return its row."""
    cursor = database.execute(
        "INSERT INTO charges (id, charge, amount, currency, payment_method, reference, description, metadata,"
        " decline_code, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
        (
            f"pi_{secrets.token_hex(12)}",
            f"ch_{secrets.token_hex(12)}",
            *(new.amount, new.currency, new.payment_method, new.reference, new.description),
            *(json.dumps(new.metadata), new.decline_code, int(time.time())),
        ),
    )
    return one(cursor)


def add_refund(
    database: sqlite3.Connection, intent: str, amount: int, reason: str | None, metadata: dict[str, str]
) -> sqlite3.Row:
    """Insert a refund; a table constraint rejects more than was charged."""
    database.execute("UPDATE charges SET refunded = refunded + ? WHERE id = ?", (amount, intent))
    refund = f"re_{secrets.token_hex(12)}"
    database.execute(
        "INSERT INTO refunds (id, payment_intent, amount, reason, metadata, created) VALUES (?, ?, ?, ?, ?, ?)",
        (refund, intent, amount, reason, json.dumps(metadata), int(time.time())),
    )
    return one(database.execute(ONE_REFUND, (refund,)))


def write_old_charges(database: sqlite3.Connection, charges: list[dict[str, Any]]) -> None:
    """Insert charges of the past, whose idempotency keys are forgotten."""
    rows = [
        each | {"metadata": json.dumps(each["metadata"]), "reference": each["metadata"]["order"]} for each in charges
    ]
    database.executemany(
        "INSERT INTO charges (id, charge, amount, currency, payment_method, reference, metadata, decline_code, created)"
        " VALUES (:id, :charge, :amount, :currency, :payment_method, :reference, :metadata, :decline_code, :created)",
        rows,
    )


def write_old_refunds(database: sqlite3.Connection, refunds: list[dict[str, Any]]) -> None:
    """Insert refunds of the past."""
    database.executemany("UPDATE charges SET refunded = refunded + :amount WHERE id = :payment_intent", refunds)
    database.executemany(
        "INSERT INTO refunds (id, payment_intent, amount, metadata, created)"
        " VALUES (:id, :payment_intent, :amount, :metadata, :created)",
        [each | {"metadata": json.dumps(each["metadata"])} for each in refunds],
    )


def find_charge(database: sqlite3.Connection, identifier: str) -> sqlite3.Row | None:
    """Find a charge by its own id or that of its payment intent."""
    return first(database.execute("SELECT * FROM charges WHERE ? IN (id, charge)", (identifier,)))


def find_refund(database: sqlite3.Connection, identifier: str) -> sqlite3.Row | None:
    return first(database.execute(ONE_REFUND, (identifier,)))


def recall(database: sqlite3.Connection, key: str) -> sqlite3.Row | None:
    """Return the stored answer for the key, or None if the key is new."""
    return first(database.execute("SELECT * FROM idempotency_keys WHERE key = ?", (key,)))


def count_repeat(database: sqlite3.Connection, key: str) -> None:
    database.execute("UPDATE idempotency_keys SET asked = asked + 1 WHERE key = ?", (key,))


def remember(database: sqlite3.Connection, key: str, fingerprint: str, answer: Answer) -> None:
    database.execute(
        "INSERT INTO idempotency_keys (key, fingerprint, http_status, body, object_id, created)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (key, fingerprint, answer.status, answer.body, answer.object_id, int(time.time())),
    )


def one(cursor: sqlite3.Cursor) -> sqlite3.Row:
    row: sqlite3.Row = cursor.fetchall()[0]
    return row


def first(cursor: sqlite3.Cursor) -> sqlite3.Row | None:
    row: sqlite3.Row | None = cursor.fetchone()
    return row


def overview(database: sqlite3.Connection, order: str | None = None, limit: int = -1) -> dict[str, Any]:
    """Return the ledger, or one order's part of it, newest first; a limit of -1 means no limit."""
    wanted = {"order": order, "limit": limit}
    return {
        "charges": [_entry(row) for row in database.execute(LEDGER_OF_CHARGES, wanted)],
        "refunds": [_entry(row) for row in database.execute(LEDGER_OF_REFUNDS, wanted)],
        "charged_twice": [row["reference"] for row in database.execute(CHARGED_TWICE, wanted)],
        "totals": [dict(row) for row in database.execute(TOTALS, wanted)],
    }


def _entry(row: sqlite3.Row) -> dict[str, Any]:
    entry = dict(row)
    del entry["number"]
    return entry | {"order": entry.pop("reference"), "metadata": json.loads(entry["metadata"])}
