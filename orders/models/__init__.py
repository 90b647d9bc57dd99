from .digests import Digest, Skip, days_before, week_of
from .events import Kind, OrderEvent
from .imports import ImportStatus, ProductImport, RejectedRow
from .orders import MAY_BECOME, OPEN, Order, OrderItem, OrderQuerySet, Status, first_look, new_reference, total_of
from .payments import ALIVE, Card, Payment, PaymentStatus
from .products import Product, slug_of

__all__ = [
    "ALIVE",
    "MAY_BECOME",
    "OPEN",
    "Card",
    "Digest",
    "ImportStatus",
    "Kind",
    "Order",
    "OrderEvent",
    "OrderItem",
    "OrderQuerySet",
    "Payment",
    "PaymentStatus",
    "Product",
    "ProductImport",
    "RejectedRow",
    "Skip",
    "Status",
    "days_before",
    "first_look",
    "new_reference",
    "slug_of",
    "total_of",
    "week_of",
]
