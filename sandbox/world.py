"""The counterparts' shared state, and the definition of a counterpart."""

import asyncio
import logging
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from .faults import Fault, Faults

logger = logging.getLogger("sandbox")


@dataclass(frozen=True)
class Counterpart:
    """One company or server outside the shop; `app.py` lists them."""

    title: str
    summary: str
    page: str
    schema: str
    faults: tuple[Fault, ...]
    routes: list[tuple[str, Any]]


@dataclass
class World:
    database: sqlite3.Connection
    faults: Faults
    counterparts: tuple[Counterpart, ...]
    slow_seconds: float
    http_address: str = ""
    smtp_address: str = ""
    # Where every page leads back to; empty shows no way.
    shop_url: str = ""
    # Where webhooks go; empty sends none.
    webhook_url: str = ""
    webhook_secret: str = ""
    # Wakes the sender.
    webhook_news: asyncio.Event = field(default_factory=asyncio.Event)
