"""The basket: product ids and quantities in the visitor's session."""

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from django.conf import settings
from django.http import HttpRequest

from .models import Product


class Line(NamedTuple):
    product: Product
    quantity: int

    @property
    def total(self) -> Decimal:
        return self.product.price * self.quantity

    @property
    def problem(self) -> str:
        """Why this line cannot be ordered now, for a person; empty if it can."""
        if not self.product.is_active:
            return f"{self.product.name} is no longer sold. Please remove it."
        if not self.product.stock:
            return f"{self.product.name} is sold out. Please remove it."
        if self.quantity > self.product.stock:
            return f"Only {self.product.stock} of {self.product.name} left. Please take fewer."
        return ""


class Basket:
    def __init__(self, request: HttpRequest) -> None:
        self.session = request.session
        self.quantities: dict[str, int] = self.session.get("basket", {})
        products = Product.objects.filter(pk__in=self.quantities).order_by("name")
        self.lines = [Line(product, self.quantities[str(product.pk)]) for product in products]

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def total(self) -> Decimal:
        return sum((line.total for line in self), Decimal())

    @property
    def currency(self) -> str:
        return settings.CURRENCY

    @property
    def problems(self) -> list[str]:
        return [line.problem for line in self if line.problem]

    def as_quantities(self) -> dict[Product, int]:
        return {line.product: line.quantity for line in self}

    def quantity_of(self, product: Product) -> int:
        return self.quantities.get(str(product.pk), 0)

    def put(self, product: Product, quantity: int) -> None:
        """Set the quantity; zero removes the product."""
        self.quantities[str(product.pk)] = quantity
        self.session["basket"] = {pk: number for pk, number in self.quantities.items() if number}

    def clear(self) -> None:
        self.session["basket"] = {}
