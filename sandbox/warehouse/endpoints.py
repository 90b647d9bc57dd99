"""The warehouse's API."""

import asyncio
import json

from ..pages import Page
from ..world import logger
from . import book

MAX_LEVELS = 5_000


class Refused(Exception):
    """Ends the request with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Levels(Page):
    """Serves the levels of one version page by page, unaffected by movements recorded meanwhile."""

    async def get(self) -> None:
        try:
            await self.let_faults_strike()
            self.check_token()
            await self.answer()
        except Refused as refused:
            self.set_status(refused.status)
            self.write_json({"error": str(refused)})

    def compute_etag(self) -> None:
        """Keep our ETag, which names the version, instead of Tornado's digest of one page."""

    async def answer(self) -> None:
        version, after = self.cursor()
        etag = f'"{book.name(self.world.database)}-{version}"'
        self.set_header("ETag", etag)
        if not after and self.request.headers.get("If-None-Match") == etag:
            self.set_status(304)
            return
        limit = self.limit()
        rows = book.levels(self.world.database, version, after, limit + 1)
        levels = [{"sku": row["sku"], "units": row["units"]} for row in rows[:limit]]
        if levels and self.strikes("warehouse_negative"):
            levels[0]["units"] = -1
        following = f"{version}.{levels[-1]['sku']}" if len(rows) > limit else None
        await self.send(json.dumps({"version": version, "levels": levels, "next": following}))

    async def send(self, body: str) -> None:
        if self.strikes("warehouse_cut"):
            stream = self.detach()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            await stream.write((head + body[: len(body) // 2]).encode())
            stream.close()
            return
        if self.strikes("warehouse_garbled"):
            body = body[: len(body) // 2]
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(body)

    async def let_faults_strike(self) -> None:
        if self.strikes("warehouse_slow"):
            await asyncio.sleep(self.world.faults.seconds("warehouse_slow"))
        if self.strikes("warehouse_error"):
            raise Refused(500, "The sandbox was told to fail.")
        if self.strikes("warehouse_busy"):
            self.set_header("Retry-After", f"{self.world.faults.seconds('warehouse_busy'):.0f}")
            raise Refused(429, "The sandbox was told to be busy.")

    def strikes(self, fault: str) -> bool:
        struck = self.world.faults.strikes(fault, self.request.headers.get("Sandbox-Fault", ""))
        if struck:
            logger.info("fault %s strikes %s", fault, self.request.uri)
        return struck

    def check_token(self) -> None:
        # A real token that is sent here by mistake must be neither accepted nor logged.
        if not self.request.headers.get("Authorization", "").startswith("Bearer wh_test_"):
            raise Refused(401, "Send 'Authorization: Bearer TOKEN'; the sandbox takes tokens that begin with wh_test_.")

    def cursor(self) -> tuple[int, str]:
        """Return the version to read, and the last SKU of the previous page."""
        newest = book.version(self.world.database)
        cursor = self.get_query_argument("cursor", "")
        if not cursor:
            return newest, ""
        version, _, after = cursor.partition(".")
        if not version.isdecimal() or not after or int(version) > newest:
            raise Refused(400, "There is no such cursor. Start with the first page.")
        return int(version), after

    def limit(self) -> int:
        limit = self.get_query_argument("limit", "100")
        if not limit.isdecimal() or not 1 <= int(limit) <= MAX_LEVELS:
            raise Refused(400, f"The limit must be a whole number from 1 to {MAX_LEVELS}.")
        return int(limit)
