from decimal import Decimal

from django import template
from django.contrib.humanize.templatetags.humanize import intcomma

register = template.Library()

SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£"}


@register.filter
def money(amount: Decimal, currency: str = "EUR") -> str:
    """Show an amount as a person writes it: € 1,250.00."""
    return f"{SYMBOLS.get(currency, currency)} {intcomma(f'{amount:.2f}')}"
