from collections.abc import Mapping

from django import template
from django.urls import reverse

from orders import money
from orders.models import Product
from orders.pictures import WIDTHS

register = template.Library()

register.filter("money", money.text)


@register.filter
def of(quantities: Mapping[int, int] | None, product: Product) -> int:
    """Return how many of the product there are, in a basket by primary key."""
    return (quantities or {}).get(product.pk, 0)


@register.filter
def srcset(product: Product) -> str:
    """List the product's thumbnails for the browser to choose from."""
    return ", ".join(f"{reverse('orders:thumbnail', args=[product.thumbnails, width])} {width}w" for width in WIDTHS)
