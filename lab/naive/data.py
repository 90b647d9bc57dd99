"""What the tutorials put into messages, and how they read what a report needs."""

from typing import Any

from accounts.models import User
from lab.naive.app import app
from lab.naive.gateway import charge
from orders.models import Order


def as_message(order: Order) -> dict[str, Any]:
    return {"reference": order.reference, "total": str(order.total), "status": order.status}


@app.task
def charge_given(order: dict[str, Any]) -> None:
    """Charge the order that the message brings along."""
    if order["status"] == "pending":
        charge(Order.objects.get(reference=order["reference"]))


def orders_of_everybody() -> list[tuple[str, int]]:
    """Return the names of the goods and how many of each, person by person."""
    found = []
    for person in User.objects.all():
        for order in Order.objects.filter(customer=person):
            for item in order.items.all():
                found.append((item.name, item.quantity))  # noqa: PERF401
    return found
