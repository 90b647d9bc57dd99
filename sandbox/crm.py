"""Stands in for a CRM: contacts by the caller's id. An older version never overwrites a newer one."""

import asyncio
import json
import re
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tornado.web import HTTPError

from .database import transaction
from .faults import Fault
from .pages import Page
from .world import Counterpart, logger

# A deleted contact keeps its id and version as a tombstone: otherwise a late, older update would bring the person back.
# Versions are times in microseconds.
SCHEMA = """
CREATE TABLE IF NOT EXISTS contacts (
    external_id TEXT PRIMARY KEY,
    email TEXT NOT NULL,
    name TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    written INTEGER NOT NULL DEFAULT 1,
    asked INTEGER NOT NULL DEFAULT 0,
    updated REAL NOT NULL
);
"""
FAULTS = (
    Fault("crm_slow", "Waits before it does anything, then continues as usual.", seconds=1.0),
    Fault(
        "crm_busy", "Answers 429 with Retry-After before writing; the seconds are the pause it asks for.", seconds=2.0
    ),
    Fault("crm_error", "Answers 500 before writing."),
    Fault("crm_refuse", "Answers 422: never try again."),
    Fault("crm_drop_answer", "Writes, then closes the connection without an answer."),
)
WRITE = """
INSERT INTO contacts (external_id, email, name, changed_at, deleted, updated)
VALUES (:external_id, :email, :name, :changed_at, :deleted, :updated)
ON CONFLICT (external_id) DO UPDATE SET email = :email, name = :name, changed_at = :changed_at, deleted = :deleted,
    updated = :updated, written = written + 1
WHERE changed_at < :changed_at
"""
COUNT = "UPDATE contacts SET asked = asked + 1 WHERE external_id = ? RETURNING *"
CONTACTS = """
SELECT * FROM contacts WHERE :external_id IN ('', external_id) ORDER BY updated DESC LIMIT :limit
"""
TEST_PREFIX = "crm_test_"
MAX_BODY = 10_000
MAX_TEXT = 254
PAGE_SIZE = 200


class Refused(HTTPError):
    """A rejected request; message and field say why. `pause` is the Retry-After in seconds, or None."""

    def __init__(self, status: int, message: str, field: str = "", pause: float | None = None) -> None:
        super().__init__(status)
        self.error = {"message": message, "field": field}
        self.pause = pause


class Contact(NamedTuple):
    email: str
    name: str
    changed_at: int
    deleted: bool = False


class Contacts(Page):
    """PUT creates or changes a contact, DELETE erases it; both send the time of the change and are idempotent."""

    async def prepare(self) -> None:
        self.check_token()
        if self.strikes("crm_slow"):
            await asyncio.sleep(self.world.faults.seconds("crm_slow"))
        if self.strikes("crm_busy"):
            raise Refused(429, "The sandbox was told to be busy.", pause=self.world.faults.seconds("crm_busy"))
        if self.strikes("crm_error"):
            raise Refused(500, "The sandbox was told to fail before writing.")
        if self.strikes("crm_refuse"):
            raise Refused(422, "The sandbox was told to refuse this contact.")

    def put(self, external_id: str) -> None:
        row, before = self.keep(external_id, read_contact(self.request.body))
        self.deliver(200 if before else 201, row)

    def delete(self, external_id: str) -> None:
        changed_at = read_time(self.get_query_argument("changed_at", ""))
        row, before = self.keep(external_id, Contact("", "", changed_at, deleted=True))
        self.deliver(200 if before and not before["deleted"] else 404, row)

    def keep(self, external_id: str, contact: Contact) -> tuple[sqlite3.Row, sqlite3.Row | None]:
        """Write the contact if it is newer; return it and its previous version. Raises `Refused` if it is older."""
        database = self.world.database
        with transaction(database):
            before = find(database, external_id)
            values = contact._asdict() | {"external_id": external_id, "updated": time.time()}
            written = database.execute(WRITE, values).rowcount
            (row,) = database.execute(COUNT, (external_id,))
        logger.info("contact %s %s", external_id, "written" if written else "not written: no newer version")
        if contact.changed_at < row["changed_at"]:
            raise Refused(409, "There is a newer version of this contact.", "changed_at")
        return row, before

    def deliver(self, status: int, row: sqlite3.Row) -> None:
        if self.strikes("crm_drop_answer"):
            self.detach().close()
            return
        self.set_status(status)
        self.write_json(dict(row))

    def strikes(self, fault: str) -> bool:
        struck = self.world.faults.strikes(fault, self.request.headers.get("Sandbox-Fault", ""))
        if struck:
            logger.info("fault %s strikes %s %s", fault, self.request.method, self.request.path)
        return struck

    def check_token(self) -> None:
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.startswith(TEST_PREFIX):
            raise Refused(401, f"Send a test token, such as 'Authorization: Bearer {TEST_PREFIX}sandbox'.")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        if not isinstance(error, Refused):
            error = Refused(status_code, "The sandbox cannot answer this.")
        if error.pause is not None:
            self.set_header("Retry-After", f"{error.pause:.0f}")
        self.write_json({"error": error.error})


def read_contact(body: bytes) -> Contact:
    """Raises `Refused`, whose message never quotes the input: an answer may end up in a log."""
    try:
        sent = json.loads(body) if len(body) <= MAX_BODY else None
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict):
        raise Refused(422, "Send an object in JSON.")
    if unknown := sent.keys() - {"email", "name", "changed_at"}:
        raise Refused(422, f"There are {len(unknown)} unknown fields.")
    email = read_text(sent, "email")
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
        raise Refused(422, "This is not an e-mail address.", "email")
    return Contact(email, read_text(sent, "name"), read_time(sent.get("changed_at")))


def read_text(sent: dict[str, Any], field: str) -> str:
    value = sent.get(field)
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise Refused(422, f"This must be a text of at most {MAX_TEXT} printable characters.", field)
    return value


def read_time(text: object) -> int:
    """Convert an ISO time with an offset to microseconds since 1970. Raises `Refused`."""
    try:
        moment = datetime.fromisoformat(text if isinstance(text, str) else "")
        # Subtracting a time without an offset raises TypeError.
        return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    except (ValueError, TypeError):
        message = "This must be a time with its offset, such as 2026-11-21T12:00:00+00:00."
        raise Refused(422, message, "changed_at") from None


def write_old(database: sqlite3.Connection, contacts: list[dict[str, Any]]) -> None:
    """Keep contacts of the past; a newer version that is known stays."""
    for contact in contacts:
        changed_at, external_id = read_time(contact["changed_at"]), str(contact["external_id"])
        values = {**contact, "external_id": external_id, "changed_at": changed_at, "deleted": False}
        database.execute(WRITE, values | {"updated": changed_at / 1_000_000})


def find(database: sqlite3.Connection, external_id: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = database.execute(
        "SELECT * FROM contacts WHERE external_id = ?", (external_id,)
    ).fetchone()
    return row


def find_contacts(database: sqlite3.Connection, external_id: str = "", limit: int = -1) -> list[sqlite3.Row]:
    """Return the contacts, last written first; an empty id means every contact, a limit of -1 no limit."""
    return database.execute(CONTACTS, {"external_id": external_id, "limit": limit}).fetchall()


class ContactsPage(Page):
    is_live = True

    def get(self) -> None:
        contacts = find_contacts(self.world.database, limit=PAGE_SIZE)
        self.render("crm.html", contacts=contacts, page_size=PAGE_SIZE)


class ContactsAsJson(Page):
    def get(self) -> None:
        found = find_contacts(self.world.database, self.get_query_argument("external_id", ""))
        self.write_json({"contacts": [dict(row) for row in found]})


COUNTERPART = Counterpart(
    title="CRM",
    summary="Keeps one contact per person, by the shop’s own id: the newest version, whatever order they arrive in.",
    page="/crm",
    schema=SCHEMA,
    faults=FAULTS,
    routes=[
        (r"/crm", ContactsPage),
        (r"/crm\.json", ContactsAsJson),
        (r"/crm/contacts/([0-9A-Za-z_-]{1,60})", Contacts),
    ],
)
