"""The ledger, for people and as JSON for tests."""

from ..pages import Page
from . import ledger

PAGE_SIZE = 200


class LedgerPage(Page):
    def get(self) -> None:
        order = self.get_query_argument("order", "") or None
        overview = ledger.overview(self.world.database, order, PAGE_SIZE)
        self.render("ledger.html", order=order, page_size=PAGE_SIZE, **overview)


class LedgerAsJson(Page):
    def get(self) -> None:
        order = self.get_query_argument("order", "") or None
        self.write_json(ledger.overview(self.world.database, order))
