"""Stands in for the warehouse: a book of what came in and what was lost, and its levels by SKU, page by page."""

from ..faults import Fault
from ..world import Counterpart
from . import book, endpoints, pages

COUNTERPART = Counterpart(
    title="Warehouse",
    summary="Keeps a book of goods that came in or were lost, and tells a shop its levels, page by page.",
    page="/warehouse",
    schema=book.SCHEMA,
    faults=(
        Fault("warehouse_slow", "Waits before it answers with a page of levels.", seconds=1.0),
        Fault("warehouse_error", "Answers 500 instead of a page of levels."),
        Fault("warehouse_busy", "Answers 429 and asks to come back in so many seconds.", seconds=2.0),
        Fault("warehouse_cut", "Closes the connection in the middle of a page of levels."),
        Fault("warehouse_garbled", "Answers 200 with JSON that ends too early."),
        Fault("warehouse_negative", "Tells a level below zero for the first SKU of a page."),
    ),
    routes=[
        (r"/warehouse", pages.WarehousePage),
        (r"/warehouse/movements", pages.Movements),
        (r"/warehouse/levels", endpoints.Levels),
    ],
)
