from .digests import Digest, Skip, days_before, week_of
from .events import Kind, OrderEvent, actor
from .imports import ImportStatus, ProductImport, RejectedRow
from .inventory import TO_BE_SEEN_AGAIN, Difference, InventoryDifference, InventorySync, Lost, SyncStatus
from .orders import (
    HOLDS_STOCK,
    MAY_BECOME,
    OPEN,
    UNSOLD,
    Order,
    OrderItem,
    OrderQuerySet,
    Status,
    first_look,
    new_reference,
    total_of,
)
from .payments import ALIVE, Card, Payment, PaymentStatus
from .products import MOST_PICTURE_ATTEMPTS, PICTURE_LEASE, PictureStatus, Product, slug_of

__all__ = [
    "ALIVE",
    "HOLDS_STOCK",
    "MAY_BECOME",
    "MOST_PICTURE_ATTEMPTS",
    "OPEN",
    "PICTURE_LEASE",
    "TO_BE_SEEN_AGAIN",
    "UNSOLD",
    "Card",
    "Difference",
    "Digest",
    "ImportStatus",
    "InventoryDifference",
    "InventorySync",
    "Kind",
    "Lost",
    "Order",
    "OrderEvent",
    "OrderItem",
    "OrderQuerySet",
    "Payment",
    "PaymentStatus",
    "PictureStatus",
    "Product",
    "ProductImport",
    "RejectedRow",
    "Skip",
    "Status",
    "SyncStatus",
    "actor",
    "days_before",
    "first_look",
    "new_reference",
    "slug_of",
    "total_of",
    "week_of",
]
