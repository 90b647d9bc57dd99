"""The warehouse's ledger: a page to record movements, and JSON for tests."""

import json

from ..pages import Page
from ..world import logger
from . import book
from .book import Impossible, Movement

PAGE_SIZE = 200
NEWEST = 20
# Reasons for a movement, and its sign.
REASONS = {"arrived": 1, "found": 1, "broken": -1, "missing": -1}


class WarehousePage(Page):
    def get(self) -> None:
        self.show()

    def show(self, error: str = "") -> None:
        database = self.world.database
        version = book.version(database)
        self.render(
            "warehouse.html",
            levels=book.levels(database, version, limit=PAGE_SIZE),
            movements=book.newest(database, NEWEST),
            version=version,
            reasons=REASONS,
            page_size=PAGE_SIZE,
            error=error,
        )


class Movements(WarehousePage):
    def get(self) -> None:
        self.redirect("/warehouse")

    def post(self) -> None:
        is_json = self.request.headers.get("Content-Type", "").startswith("application/json")
        try:
            movements = self.from_json() if is_json else [self.from_form()]
            book.write(self.world.database, movements)
        except Impossible as error:
            self.refuse(str(error), is_json)
            return
        logger.info("warehouse: %s movements, the first: %s", len(movements), movements[:1])
        if is_json:
            self.write_json({"version": book.version(self.world.database)})
        else:
            self.redirect("/warehouse", status=303)

    def refuse(self, message: str, is_json: bool) -> None:
        self.set_status(400)
        if is_json:
            self.write_json({"error": message})
        else:
            self.show(message)

    def from_form(self) -> Movement:
        units = self.get_body_argument("units", "").strip()
        reason = self.get_body_argument("reason", "")
        if not units.isdecimal() or len(units) > len(str(book.MAX_UNITS)):
            raise Impossible(f"The units must be a whole number from 1 to {book.MAX_UNITS}.")
        if reason not in REASONS:
            raise Impossible(f"Say what happened: {', '.join(REASONS)}.")
        return Movement(self.get_body_argument("sku", "").strip(), REASONS[reason] * int(units), reason)

    def from_json(self) -> list[Movement]:
        """Read {"movements": [{"sku": …, "units": 20}, …]}; negative units are losses."""
        try:
            given = json.loads(self.request.body)["movements"]
            wanted = [Movement(one["sku"], one["units"], str(one.get("reason", "told"))) for one in given]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Impossible('Send an object such as {"movements": [{"sku": "LIT-001", "units": 20}]}.') from None
        if not all(isinstance(one.sku, str) and type(one.units) is int for one in wanted):
            raise Impossible("A SKU is a text, and units are a whole number.")
        return wanted
