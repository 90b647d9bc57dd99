from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from django import template
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import get_language

from myproject.web import kept
from orders import money
from orders.models import Product
from orders.pictures import WIDTHS

register = template.Library()


class Shown(NamedTuple):
    """All that a card shows of a product."""

    pk: int
    slug: str
    name: str
    price: Decimal
    currency: str
    stock: int
    thumbnails: str


register.filter("money", money.text)


@register.simple_tag(takes_context=True)
def card(context: dict[str, Any], product: Product, level: int = 2) -> SafeString:
    """Show the product as a card, which is made once for all visitors to whom it looks the same."""
    shown = Shown(*(getattr(product, name) for name in Shown._fields))
    inside = of(context.get("in_basket"), product)
    within = {"product": shown, "in_basket": {product.pk: inside}, "level": level, "csrf_token": kept.TOKEN}
    # It can show nothing that is not named there.
    return kept.piece(
        (shown, inside, level, get_language()),
        context["csrf_token"],
        lambda: render_to_string("orders/_card.html", within),
    )


@register.filter
def of(quantities: Mapping[int, int] | None, product: Product | Shown) -> int:
    """Return how many of the product there are, in a basket by primary key."""
    return (quantities or {}).get(product.pk, 0)


@register.filter
def srcset(product: Product | Shown) -> str:
    """List the product's thumbnails for the browser to choose from."""
    return ", ".join(f"{reverse('orders:thumbnail', args=[product.thumbnails, width])} {width}w" for width in WIDTHS)
