"""Stands in for the mail server and every inbox: accepts any mail by SMTP and shows it on a page."""

import asyncio
import json
import re
import sqlite3
import time
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

from aiosmtpd.smtp import SMTP, Envelope, Session
from tornado.web import HTTPError

from .database import transaction
from .faults import Fault
from .pages import Page
from .world import Counterpart, World, logger

SCHEMA = """
CREATE TABLE IF NOT EXISTS mails (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sender TEXT NOT NULL,
    recipients TEXT NOT NULL,
    subject TEXT NOT NULL,
    message_id TEXT NOT NULL,
    text TEXT NOT NULL,
    html TEXT NOT NULL,
    raw BLOB NOT NULL,
    received REAL NOT NULL
);
"""
FAULTS = (
    Fault("smtp_temporary", "Answers 451 to a mail: try again later."),
    Fault("smtp_permanent", "Answers 550 to a mail: never try again."),
)
FAULT_ANSWERS = {
    "smtp_temporary": "451 4.3.0 The sandbox was told to refuse this mail for now",
    "smtp_permanent": "550 5.7.1 The sandbox was told to refuse this mail for good",
}
INSERT = """
INSERT INTO mails (sender, recipients, subject, message_id, text, html, raw, received) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
MAILS = """
SELECT id, sender, recipients, subject, message_id, received, text, html FROM mails
WHERE :to = '' OR EXISTS (SELECT 1 FROM json_each(recipients) WHERE lower(value) = lower(:to))
ORDER BY id DESC LIMIT :limit
"""
PAGE_SIZE = 100
MAX_AS_JSON = 1000
# Mail is untrusted: it may be styled, but it runs no scripts and has no access to this origin.
FRAME = "allow-popups allow-popups-to-escape-sandbox allow-top-navigation-by-user-activation"
MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: http: https:; font-src data:; "
    f"form-action 'none'; frame-ancestors 'self'; sandbox {FRAME}"
)


class Inbox:
    """Receives mail from aiosmtpd. A mail that was answered with 250 is on disk."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        raw = cast(bytes, envelope.content)
        message = message_from_bytes(raw, policy=default)
        for fault, answer in FAULT_ANSWERS.items():
            if self.world.faults.strikes(fault, header(message, "Sandbox-Fault")):
                logger.info("fault %s strikes a mail", fault)
                return answer
        number = keep(self.world.database, envelope, message)
        logger.info("mail %s arrived: %s", number, header(message, "Subject"))
        return f"250 2.0.0 Kept as mail {number}"


async def listen(world: World, host: str, port: int) -> asyncio.Server:
    """Open the SMTP port. Raises `OSError` when it is in use."""
    loop = asyncio.get_running_loop()
    inbox = Inbox(world)
    return await loop.create_server(
        lambda: SMTP(inbox, hostname="sandbox", ident="Sandbox", enable_SMTPUTF8=True, loop=loop), host, port
    )


def keep(database: sqlite3.Connection, envelope: Envelope, message: EmailMessage) -> int:
    # The envelope decides who receives a mail, not its headers.
    row = (
        envelope.mail_from or "",
        json.dumps(envelope.rcpt_tos),
        *(header(message, name) for name in ("Subject", "Message-ID")),
        *(body(message, kind) for kind in ("plain", "html")),
        *(envelope.content, time.time()),
    )
    with transaction(database):
        return cast(int, database.execute(INSERT, row).lastrowid)


def write_old(database: sqlite3.Connection, mails: list[dict[str, Any]]) -> None:
    """Keep mails of the past, already read, in the order in which they arrived."""
    for mail in sorted(mails, key=lambda mail: float(mail["received"])):
        read = (mail[name] for name in ("subject", "message_id", "text", "html"))
        row = (mail["from"], json.dumps(mail["to"]), *read, mail["raw"].encode(), mail["received"])
        database.execute(INSERT, row)


def body(message: EmailMessage, kind: str) -> str:
    """Return the mail's plain or HTML part, or an empty string."""
    part = message.get_body((kind,))
    if part is None:
        return ""
    try:
        content = str(part.get_content())
    except (LookupError, UnicodeError):
        content = cast(bytes, part.get_payload(decode=True)).decode(errors="replace")
    return printable(content.replace("\r\n", "\n"))


def header(message: EmailMessage, name: str) -> str:
    return next((text for known, text in headers(message) if known.lower() == name.lower()), "")


def headers(message: EmailMessage) -> list[tuple[str, str]]:
    """Return all headers, decoded where they are valid and raw where they are not."""
    decoded = []
    for name, raw in message.raw_items():
        try:
            text = str(message.policy.header_fetch_parse(name, raw))
        # The standard library's parser raises all kinds of errors for a malformed header.
        except Exception:
            text = str(raw)
        decoded.append((name, printable(text)))
    return decoded


def printable(text: str) -> str:
    return text.encode(errors="replace").decode()


def count(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT count(*) FROM mails").fetchone()[0])


def find_mails(database: sqlite3.Connection, to: str, limit: int) -> list[dict[str, Any]]:
    """Return mails, newest first; an empty address means all mail."""
    return [_mail(row) for row in database.execute(MAILS, {"to": to, "limit": limit})]


def _mail(row: sqlite3.Row) -> dict[str, Any]:
    mail = dict(row)
    return mail | {"from": mail.pop("sender"), "to": json.loads(mail.pop("recipients"))}


class MailboxPage(Page):
    is_live = True

    def get(self) -> None:
        to = self.get_query_argument("to", "")
        mails = find_mails(self.world.database, to, PAGE_SIZE)
        self.render("mailbox.html", mails=mails, to=to, total=count(self.world.database), page_size=PAGE_SIZE)


class MailboxAsJson(Page):
    def get(self) -> None:
        self.write_json(find_mails(self.world.database, self.get_query_argument("to", ""), MAX_AS_JSON))


class MailPage(Page):
    def get(self, number: str) -> None:
        row = self.find(number)
        message = message_from_bytes(row["raw"], policy=default)
        attachments = [part.get_filename() or part.get_content_type() for part in message.iter_attachments()]
        self.render("mail.html", mail=_mail(row), headers=headers(message), attachments=attachments, frame=FRAME)

    def find(self, number: str) -> sqlite3.Row:
        found = self.world.database.execute("SELECT * FROM mails WHERE id = ?", (number,)).fetchone()
        if found is None:
            raise HTTPError(404)
        return cast(sqlite3.Row, found)


class MailAsHtml(MailPage):
    """The mail's HTML, for the frame on its page."""

    def get(self, number: str) -> None:
        self.set_header("Content-Security-Policy", MAIL_POLICY)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(with_links_to_top(self.find(number)["html"]))


def with_links_to_top(html: str) -> str:
    """Make links open in the whole window, not in the frame; browsers use a page's first <base>."""
    base = '<base target="_top">'
    changed, found = re.subn(r"<head\b[^>]*>", lambda head: head[0] + base, html, count=1, flags=re.IGNORECASE)
    return changed if found else base + html


COUNTERPART = Counterpart(
    title="Mailbox",
    summary="Accepts all mail by SMTP and shows it. Nothing leaves this machine.",
    page="/mail",
    schema=SCHEMA,
    faults=FAULTS,
    routes=[
        (r"/mail", MailboxPage),
        (r"/mail\.json", MailboxAsJson),
        (r"/mail/([0-9]{1,18})", MailPage),
        (r"/mail/([0-9]{1,18})/html", MailAsHtml),
    ],
)
