"""The one connection to PostgreSQL that hears what was committed."""

import asyncio
import logging
from typing import Any

import psycopg
from django.conf import settings

from . import metrics
from .hub import Hub

log = logging.getLogger(__name__)

# Seconds: how often a silent connection is asked whether it lives, how long it may take to answer, and the pause
# before another one.
ASK_AFTER, WITHIN, PAUSE = 5, 5, 1


class Listener:
    """Hands each notification to the hub; without a connection no stream stays open, so that the pages poll."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.hears = False

    async def run(self) -> None:
        while True:
            try:
                await self.listen()
            except (psycopg.Error, OSError, TimeoutError) as error:
                if self.hears:
                    log.warning("Push has lost the database, the pages poll: %s", error)
            self.hears = False
            self.hub.end_all()
            await asyncio.sleep(PAUSE)

    async def listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(**parameters(settings.LIVE_DATABASE), autocommit=True)
        async with connection:
            await connection.execute("LISTEN live")
            self.hub.begin()
            self.hears = True
            log.info("Push hears the database")
            while True:
                async for notification in connection.notifies(timeout=ASK_AFTER):
                    metrics.NEWS.inc()
                    self.hub.tell(notification.payload)
                async with asyncio.timeout(WITHIN):
                    await connection.execute("SELECT 1")


def parameters(database: dict[str, Any]) -> dict[str, Any]:
    """Return what psycopg wants to know of Django's settings of a database."""
    given = {key: database.get(key.upper()) for key in ("host", "port", "user", "password")}
    named = {key: value for key, value in given.items() if value}
    options = {key: value for key, value in database.get("OPTIONS", {}).items() if key != "pool"}
    return {"application_name": "live", "connect_timeout": WITHIN, "dbname": database["NAME"], **named, **options}
