"""The invoice as PDF: the same order gives the same document, in every process and every time."""

from orders import money
from orders.models import Order
from reports.formats.to_pdf import compiled, encoded

LAYOUT = b"""
#set text(font: json("fonts.json"))
#let it = json("invoice.json")
= Invoice for order #it.order
#it.name \\ #it.date
#table(
  columns: (1fr, auto, auto), align: (left, right, right), stroke: none,
  [*Product*], [*Units*], [*Price*],
  ..it.lines.flatten(),
  [*Total*], [], [*#it.total*],
)
"""


def invoice(order: Order) -> bytes:
    """Return the document; makes a query."""
    lines = [
        [item.name, str(item.quantity), money.text(item.total, order.currency)] for item in order.items.order_by("pk")
    ]
    said = {
        "order": order.reference,
        "name": str(order.customer),
        "date": f"{order.completed_at:%d %B %Y}",
        "lines": lines,
        "total": money.text(order.total, order.currency),
    }
    return compiled({"main": LAYOUT, "invoice.json": encoded(said)})
