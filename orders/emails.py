from collections.abc import Sequence
from datetime import timedelta

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.urls import reverse

from accounts import unsubscribe
from myproject.web import mails

from .models import Digest, Order, Product


def confirmation(order: Order) -> EmailMultiAlternatives:
    url = settings.SITE_URL + order.get_absolute_url()
    context = {"order": order, "items": order.items.order_by("pk"), "url": url}
    return mails.render(
        "orders/email/order_confirmation", order.customer.mail_address, f"order-{order.reference}", context
    )


def digest(row: Digest, orders: Sequence[Order], products: Sequence[Product]) -> EmailMultiAlternatives:
    context = {
        "person": row.person,
        "first_day": row.week - timedelta(days=7),
        "last_day": row.week - timedelta(days=1),
        "orders": orders,
        "products": products,
        "orders_url": settings.SITE_URL + reverse("orders:list"),
        "url": settings.SITE_URL + reverse("orders:catalogue"),
    }
    name, leave = f"digest-{row.pk}", unsubscribe.url(row.person, "digest")
    return mails.render("orders/email/weekly_digest", row.person.email, name, context, unsubscribe=leave)
