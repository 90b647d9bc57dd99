"""The years before: a shop that is filled for a demo tells what these companies would remember of it, once."""

import json
import sqlite3
from typing import Any

from . import chat, crm, mailbox
from .database import transaction
from .pages import Page
from .payments import ledger
from .warehouse import book
from .world import logger

SCHEMA = "CREATE TABLE IF NOT EXISTS histories (name TEXT PRIMARY KEY);"
WRITERS = {
    "charges": ledger.write_old_charges,
    "refunds": ledger.write_old_refunds,
    "mails": mailbox.write_old,
    "messages": chat.write_old,
    "contacts": crm.write_old,
    "movements": book.write_old,
}


class History(Page):
    def post(self) -> None:
        """Take an object with a `name`, and rows for each of `WRITERS`; a name that is known changes nothing."""
        try:
            written = write(self.world.database, json.loads(self.request.body))
        except (ValueError, LookupError, TypeError, AttributeError, sqlite3.Error) as error:
            self.set_status(400)
            self.write_json({"error": f"{type(error).__name__}: {error}"})
        else:
            self.write_json({"written": written})


def write(database: sqlite3.Connection, told: dict[str, Any]) -> bool:
    """Write all of it or nothing; False if it was told before."""
    with transaction(database):
        if not database.execute("INSERT OR IGNORE INTO histories VALUES (?)", (str(told["name"]),)).rowcount:
            return False
        for name, write_rows in WRITERS.items():
            write_rows(database, told.get(name, []))
    logger.info("history %s: %s", told["name"], {name: len(told.get(name, [])) for name in WRITERS})
    return True
