from decimal import Decimal

from django import template
from django.contrib.humanize.templatetags.humanize import intcomma
from django.urls import reverse

from orders.models import Product
from orders.pictures import WIDTHS

register = template.Library()

SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£"}


@register.filter
def money(amount: Decimal, currency: str = "EUR") -> str:
    """Show an amount as a person writes it: € 1,250.00."""
    return f"{SYMBOLS.get(currency, currency)} {intcomma(f'{amount:.2f}')}"


@register.filter
def srcset(product: Product) -> str:
    """List the product's thumbnails for the browser to choose from."""
    return ", ".join(f"{reverse('orders:thumbnail', args=[product.thumbnails, width])} {width}w" for width in WIDTHS)
