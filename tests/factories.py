"""Rows for tests: what a test does not care about has a default."""

import uuid
from decimal import Decimal
from itertools import count
from typing import Any

from django.utils import timezone

from accounts.models import User
from orders import services
from orders.models import Card, Order, Product

PASSWORD = "correct-horse-battery"
_numbers = count(1)


def make_user(**fields: Any) -> User:
    number = next(_numbers)
    return User.objects.create_user(
        **{"email": f"person{number}@example.com", "name": f"Person {number}", "password": PASSWORD} | fields
    )


def make_product(**fields: Any) -> Product:
    number = next(_numbers)
    defaults = {"sku": f"SKU-{number}", "name": f"Lamp {number}", "category": "Lighting"}
    return Product.objects.create(**defaults | {"price": Decimal("12.50"), "stock": 10} | fields)


def place_order(
    customer: User | None = None, product: Product | None = None, quantity: int = 1, card: str = Card.VISA
) -> Order:
    """Place an order as the checkout page does, without queueing it."""
    return services.place_order(
        customer or make_user(), {product or make_product(): quantity}, card=card, token=uuid.uuid4()
    )


def end_lease(order: Order) -> None:
    """Let the lease of the order end now, as if its worker had died long ago."""
    Order.objects.filter(pk=order.pk).update(due_at=timezone.now())
