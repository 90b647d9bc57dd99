"""Stands in for the operators' chat: receives what apprise or Alertmanager posts as JSON, and shows it."""

import asyncio
import json
import sqlite3
import time
from typing import Any

from .database import transaction
from .faults import Fault
from .pages import Page
from .world import Counterpart, logger

SCHEMA = """
CREATE TABLE IF NOT EXISTS chat (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    kind TEXT NOT NULL,
    received REAL NOT NULL
);
"""
FAULTS = (
    Fault("chat_error", "Answers 500 to a message, and does not show it."),
    Fault("chat_slow", "Waits before it accepts a message.", seconds=20.0),
)
PAGE_SIZE = 100


class ChatPage(Page):
    is_live = True

    def get(self) -> None:
        self.render("chat.html", messages=newest(self.world.database), page_size=PAGE_SIZE)

    async def post(self) -> None:
        """Receive a message: an object with `message`, and optionally `title` and `type`; or Alertmanager's alerts."""
        if self.strikes("chat_slow"):
            await asyncio.sleep(self.world.faults.seconds("chat_slow"))
        if self.strikes("chat_error"):
            self.answer(500, error="The sandbox was told to refuse this message.")
        elif (message := read(self.request.body)) is None:
            self.answer(400, error='Send an object such as {"title": "…", "message": "…"}.')
        else:
            keep(self.world.database, message)
            self.answer(200, status="ok")

    def strikes(self, fault: str) -> bool:
        struck = self.world.faults.strikes(fault, self.request.headers.get("Sandbox-Fault", ""))
        if struck:
            logger.info("fault %s strikes a message to the chat", fault)
        return struck

    def answer(self, code: int, **fields: str) -> None:
        self.set_status(code)
        self.write_json(fields)


class ChatAsJson(Page):
    def get(self) -> None:
        self.write_json(newest(self.world.database))


def read(body: bytes) -> dict[str, str] | None:
    """Return title, message and type; None when the body is not an object with a message."""
    try:
        sent = json.loads(body)
    except ValueError:
        return None
    if isinstance(sent, dict) and isinstance(sent.get("alerts"), list):
        sent = of_alertmanager(sent)
    if not isinstance(sent, dict) or not sent.get("message"):
        return None
    return {name: str(sent.get(name) or "") for name in ("title", "message", "type")}


def of_alertmanager(sent: dict[str, Any]) -> dict[str, str]:
    """Return the alerts of one group as a message: a line for each."""
    alerts = [alert for alert in sent["alerts"] if isinstance(alert, dict)]
    lines = [str((alert.get("annotations") or {}).get("summary") or alert.get("labels")) for alert in alerts]
    names = sorted({str((alert.get("labels") or {}).get("alertname")) for alert in alerts})
    return {"title": f"{', '.join(names)}: {sent.get('status')}", "message": "\n".join(lines), "type": "failure"}


def keep(database: sqlite3.Connection, message: dict[str, str]) -> None:
    with transaction(database):
        database.execute(
            "INSERT INTO chat (title, message, kind, received) VALUES (?, ?, ?, ?)", (*message.values(), time.time())
        )
    logger.info("chat: %s", message["title"])


def write_old(database: sqlite3.Connection, messages: list[dict[str, Any]]) -> None:
    """Keep messages of the past."""
    statement = "INSERT INTO chat (title, message, kind, received) VALUES (:title, :message, :kind, :received)"
    database.executemany(statement, messages)


def newest(database: sqlite3.Connection) -> list[dict[str, Any]]:
    return [dict(row) for row in database.execute("SELECT * FROM chat ORDER BY id DESC LIMIT ?", (PAGE_SIZE,))]


COUNTERPART = Counterpart(
    title="Chat",
    summary="The operators' channel: the shop's alerts arrive here, once for each cause.",
    page="/chat",
    schema=SCHEMA,
    faults=FAULTS,
    routes=[(r"/chat", ChatPage), (r"/chat\.json", ChatAsJson)],
)
