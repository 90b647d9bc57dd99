from .baskets import Basket, BasketLine
from .digests import Digest, Skip, days_before, week_of
from .events import Kind, OrderEvent, actor, recorded_by
from .imports import ImportStatus, ProductImport, ProductImportQuerySet, RejectedRow, StockSeen
from .inventory import TO_BE_SEEN_AGAIN, Difference, InventoryDifference, InventorySync, SyncStatus
from .orders import (
    HOLDS_STOCK,
    MAY_BECOME,
    OPEN,
    UNSOLD,
    Order,
    OrderItem,
    OrderQuerySet,
    Status,
    new_reference,
    total_of,
)
from .payments import ALIVE, MOST_ATTEMPTS, Card, Payment, PaymentStatus
from .products import HIGHEST_STOCK, PICTURE_LEASE, PictureStatus, Product, sku_key, slug_of

__all__ = [
    "ALIVE",
    "HIGHEST_STOCK",
    "HOLDS_STOCK",
    "MAY_BECOME",
    "MOST_ATTEMPTS",
    "OPEN",
    "PICTURE_LEASE",
    "TO_BE_SEEN_AGAIN",
    "UNSOLD",
    "Basket",
    "BasketLine",
    "Card",
    "Difference",
    "Digest",
    "ImportStatus",
    "InventoryDifference",
    "InventorySync",
    "Kind",
    "Order",
    "OrderEvent",
    "OrderItem",
    "OrderQuerySet",
    "Payment",
    "PaymentStatus",
    "PictureStatus",
    "Product",
    "ProductImport",
    "ProductImportQuerySet",
    "RejectedRow",
    "Skip",
    "Status",
    "StockSeen",
    "SyncStatus",
    "actor",
    "days_before",
    "new_reference",
    "recorded_by",
    "sku_key",
    "slug_of",
    "total_of",
    "week_of",
]
