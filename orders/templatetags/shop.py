from django import template
from django.urls import reverse

from myproject import texts
from orders import money
from orders.models import Product
from orders.pictures import WIDTHS

register = template.Library()

register.filter("money", money.text)
register.filter("isolated", texts.isolated)


@register.filter
def srcset(product: Product) -> str:
    """List the product's thumbnails for the browser to choose from."""
    return ", ".join(f"{reverse('orders:thumbnail', args=[product.thumbnails, width])} {width}w" for width in WIDTHS)
