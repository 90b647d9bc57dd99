"""Rows that experiments begin with."""

import uuid
from collections.abc import Mapping
from decimal import Decimal

from django.db import connection, transaction

from accounts.models import User
from orders import services
from orders.models import Card, Order, OrderItem, Payment, Product, Status


def person(number: int = 1) -> User:
    user, _ = User.objects.get_or_create(
        email=f"reader{number}@example.com", defaults={"name": f"Reader {number}", "wants_digest": True}
    )
    return user


def product(stock: int = 100, sku: str = "LAMP") -> Product:
    price = Decimal("12.50")
    return Product.objects.create(sku=sku, slug=sku.lower(), name=sku.title(), category="Lab", price=price, stock=stock)


def token() -> uuid.UUID:
    return uuid.uuid4()


def place(goods: Mapping[Product, int], card: str = Card.VISA) -> Order:
    """Place an order as the checkout does, without queueing it."""
    return services.place_order(person(), goods, card=card, token=uuid.uuid4())


def place_many(count: int, stock: int = 1000, card: str = Card.VISA) -> list[Order]:
    lamp = product(stock)
    return [place({lamp: 1}, card) for _ in range(count)]


def completed(*orders: Order) -> int:
    return Order.objects.filter(pk__in=[order.pk for order in orders], status=Status.COMPLETED).count()


def references(orders: list[Order]) -> list[str]:
    return [order.reference for order in orders]


def unsaved(goods: Product) -> Order:
    """Return an order that is not in the database yet; its payment and its item follow when it is saved."""
    return Order(customer=person(), token=uuid.uuid4(), total=goods.price, **Order.lease.fresh())


def completed_in_all() -> int:
    return Order.objects.filter(status=Status.COMPLETED).count()


def wait_in_database(seconds: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])


@transaction.atomic
def place_in_bulk(count: int) -> list[int]:
    """Write down orders of one item as `place_order` leaves them; return their ids."""
    lamp, customer = product(stock=count), person()
    orders = Order.objects.bulk_create(
        Order(customer=customer, token=uuid.uuid4(), total=lamp.price, **Order.lease.fresh()) for _ in range(count)
    )
    OrderItem.objects.bulk_create(
        OrderItem(order=order, product=lamp, name=lamp.name, price=lamp.price, quantity=1) for order in orders
    )
    Payment.objects.bulk_create(
        Payment(order=order, card=Card.VISA, amount=order.total, currency=order.currency) for order in orders
    )
    return [order.pk for order in orders]
