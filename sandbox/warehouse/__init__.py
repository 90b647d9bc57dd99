"""Stands in for the warehouse: a stock ledger, and paginated levels by SKU."""

from ..faults import Fault
from ..world import Counterpart
from . import book, endpoints, pages

COUNTERPART = Counterpart(
    title="Warehouse",
    summary="Keeps a ledger of goods received and lost, and serves stock levels page by page.",
    page="/warehouse",
    schema=book.SCHEMA,
    faults=(
        Fault("warehouse_slow", "Waits before it returns a page of levels.", seconds=1.0),
        Fault("warehouse_error", "Answers 500 instead of a page of levels."),
        Fault("warehouse_busy", "Answers 429 with a Retry-After of so many seconds.", seconds=2.0),
        Fault("warehouse_cut", "Closes the connection in the middle of a page of levels."),
        Fault("warehouse_garbled", "Answers 200 with truncated JSON."),
        Fault("warehouse_negative", "Returns a negative level for the first SKU of a page."),
    ),
    routes=[
        (r"/warehouse", pages.WarehousePage),
        (r"/warehouse/movements", pages.Movements),
        (r"/warehouse/levels", endpoints.Levels),
    ],
)
