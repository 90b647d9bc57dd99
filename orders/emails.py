from django.conf import settings
from django.core.mail import EmailMultiAlternatives

from myproject import mail

from .models import Order


def confirmation(order: Order) -> EmailMultiAlternatives:
    url = settings.SITE_URL + order.get_absolute_url()
    context = {"order": order, "items": order.items.order_by("pk"), "url": url}
    return mail.render("orders/email/order_confirmation", order.customer.email, f"order-{order.reference}", context)
