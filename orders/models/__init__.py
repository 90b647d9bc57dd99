from .digests import Digest, Skip, days_before, week_of
from .events import Kind, OrderEvent
from .orders import MAY_BECOME, OPEN, Order, OrderItem, OrderQuerySet, Status, first_look, new_reference, total_of
from .payments import ALIVE, Card, Payment, PaymentStatus
from .products import Product

__all__ = [
    "ALIVE",
    "MAY_BECOME",
    "OPEN",
    "Card",
    "Digest",
    "Kind",
    "Order",
    "OrderEvent",
    "OrderItem",
    "OrderQuerySet",
    "Payment",
    "PaymentStatus",
    "Product",
    "Skip",
    "Status",
    "days_before",
    "first_look",
    "new_reference",
    "total_of",
    "week_of",
]
