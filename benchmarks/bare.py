"""A bare Django on the shop's own server: plain views that read or write the same rows as the shop's pages do.

`gunicorn benchmarks.bare --config deploy/gunicorn.conf.py`. No templates, no forms, no log lines, no headers.
"""

import uuid
from typing import Any

import django
from django.conf import settings

django.setup()

# The two that a view needs to know a customer; neither asks the database for anyone else.
settings.MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
settings.ROOT_URLCONF = __name__

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.db import transaction  # noqa: E402
from django.db.models import Sum  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from orders.models import BasketLine, Card, Kind, Order, OrderEvent, OrderItem, Payment, Product  # noqa: E402

ON_SALE = Product.objects.filter(is_active=True)


def catalogue(request: HttpRequest) -> HttpResponse:
    products = [shown(product) for product in ON_SALE.order_by("name", "pk")[:12]]
    categories = list(ON_SALE.order_by("category").values_list("category", flat=True).distinct())
    return JsonResponse({"products": products, "count": ON_SALE.count(), "categories": categories})


def product(request: HttpRequest, slug: str) -> HttpResponse:
    found = ON_SALE.get(slug=slug)
    more = ON_SALE.filter(category=found.category).exclude(pk=found.pk).order_by("name", "pk")[:4]
    return JsonResponse({"product": shown(found), "more": [shown(other) for other in more]})


def order(request: HttpRequest, reference: str) -> HttpResponse:
    customer: Any = request.user
    found = Order.objects.get(reference=reference, customer=customer)
    items = [[item.name, item.quantity, shown(item.product)] for item in found.items.select_related("product")]
    events = [[event.kind, event.created_at] for event in found.events.order_by("created_at")]
    payments = [[payment.card, payment.status] for payment in found.payments.order_by("attempt")]
    status = {"status": found.status, "items": items, "events": events, "payments": payments}
    return JsonResponse(status | BasketLine.objects.filter(basket__person=customer).aggregate(Sum("quantity")))


@transaction.atomic
def checkout(request: HttpRequest) -> HttpResponse:
    """Write what the shop writes of an order: itself, its items, its payment, its first event; and empty the basket."""
    customer: Any = request.user
    lines = list(BasketLine.objects.filter(basket__person=customer).select_related("product"))
    total = sum(line.product.price * line.quantity for line in lines)
    placed = Order.objects.create(customer=customer, token=uuid.uuid4(), total=total, **Order.lease.fresh())
    OrderItem.objects.bulk_create(
        OrderItem(order=placed, product=line.product, name=line.product.name, price=line.product.price, quantity=1)
        for line in lines
    )
    Payment.objects.create(order=placed, card=Card.VISA, attempt=1, amount=total, currency=placed.currency)
    OrderEvent.objects.create(order=placed, kind=Kind.PLACED)
    BasketLine.objects.filter(basket__person=customer).delete()
    return JsonResponse({"reference": placed.reference}, status=201)


def shown(product: Product) -> list[Any]:
    return [product.name, product.slug, product.price, product.stock]


urlpatterns = [
    path("", catalogue),
    path("products/<slug:slug>/", product),
    path("orders/<slug:reference>/", order),
    path("checkout/", checkout),
]
application = WSGIHandler()
