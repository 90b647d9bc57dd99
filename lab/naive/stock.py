"""Stock as the tutorials reserve it."""

import time

from lab.naive.app import app
from lab.naive.orders import complete
from orders.models import Order


class OutOfStock(Exception):
    """There is not enough left."""


@app.task
def reserve(order_id: int) -> None:
    """Take the goods from the stock, item by item."""
    order = Order.objects.get(pk=order_id)
    for item in order.items.order_by("pk"):
        product = item.product
        if product.stock < item.quantity:
            raise OutOfStock(product.name)
        # What else is to be done for an item.
        time.sleep(0.05)
        product.stock -= item.quantity
        product.save()
    complete(order)
