"""Applies the warehouse's changes to the shop's stock without losing reservations.

The warehouse counts units that came in, less those that were lost; it does not count what is sold. The shop's stock is
what may still be ordered. So not the warehouse's level is the stock, but each *change* of the level changes the stock:
the shop remembers for each product the level that its stock has followed, and adds the difference. Additions commute
with what orders take and give back meanwhile, and a level that was followed changes nothing the second time.

The first level of a product sets its stock, less what orders hold or have sold. From then on, for every product,
stock + sold = the warehouse's level (+ what staff has added by hand).
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from django.db import transaction
from django.db.models import F, Sum

from durable.errors import TemporaryError
from durable.leases import LeaseLost
from myproject.alerting.alerts import alert

from . import services, warehouse
from .models import (
    HIGHEST_STOCK,
    HOLDS_STOCK,
    TO_BE_SEEN_AGAIN,
    Difference,
    InventoryDifference,
    InventorySync,
    OrderItem,
    Product,
    SyncStatus,
)

log = logging.getLogger(__name__)


class Change(NamedTuple):
    """What a level means for a product.

    `short` are units that were lost but are not there to be taken away; `over` those that the stock has no room for.
    """

    added: int
    level: int
    short: int
    over: int


def synchronise(run: InventorySync) -> None:
    """Apply all levels and finish the run.

    Raises `TemporaryError`, when the task should retry, and `PermanentError`.
    """
    try:
        apply_levels(run)
    except TemporaryError as error:
        run.mark_waiting(str(error), error.retry_after or 0)
        raise
    except LeaseLost as error:
        log.info("%s", error)


def apply_levels(run: InventorySync) -> None:
    etag, seen = InventorySync.objects.etag_to_send(), set[str]()
    page: warehouse.Page | None = None
    for told in warehouse.pages(etag):
        page = spelled_here(told, seen)
        seen.update(page.skus)
        apply_page(run, page, len(seen))
    if page is None:
        run.mark_finished(SyncStatus.UNCHANGED, etag=etag)
    else:
        report_missing(run, seen)
        finish(run, page)


def spelled_here(page: warehouse.Page, seen: Collection[str]) -> warehouse.Page:
    """Return the page with our spelling of each SKU; what is the same SKU here, and told twice, is not applied."""
    ours = {sku: sku for sku in page.skus} | Product.objects.spellings(page.skus)
    times = Counter(ours.values())
    levels, unusable = dict[str, int](), {ours[sku]: why for sku, why in page.unusable.items()}
    for sku, level in page.levels.items():
        if times[ours[sku]] > 1 or ours[sku] in seen:
            unusable[sku] = f"It is told more than once, here as {ours[sku]}."
        else:
            levels[ours[sku]] = level
    return page._replace(levels=levels, unusable=unusable)


def finish(run: InventorySync, last: warehouse.Page) -> None:
    is_settled = not run.differences.filter(kind__in=TO_BE_SEEN_AGAIN).exists()
    if not run.mark_finished(SyncStatus.SUCCEEDED, etag=last.etag if is_settled else "", version=last.version):
        return
    if oversold := run.differences.filter(kind=Difference.OVERSOLD).count():
        alert("Oversold products", f"{oversold} products, see {run.get_absolute_url()}")


@transaction.atomic
def apply_page(run: InventorySync, page: warehouse.Page, seen: int) -> None:
    """Apply one page of levels in one short transaction. Raises `LeaseLost`."""
    run.hold(seen=seen)
    known = {sku: (pk, units) for sku, pk, units in Product.objects.levels_of(page.skus)}
    moved = [known[sku][0] for sku, level in page.levels.items() if sku in known and known[sku][1] != level]
    products = services.lock_products(moved)
    changes = changes_of(products.values(), page.levels)
    count = Product.objects.apply_levels({pk: (change.added, change.level) for pk, change in changes.items()})
    InventorySync.objects.filter(pk=run.pk).update(changed=F("changed") + count)
    record(run, Difference.UNKNOWN_HERE, dict.fromkeys(page.levels.keys() - known.keys(), ""))
    record(run, Difference.UNUSABLE, page.unusable)
    record(run, Difference.UNUSABLE, unusable_among(products, changes))
    record(run, Difference.OVERSOLD, oversold_among(products, changes))
    record(run, Difference.CORRECTED, corrected_among(products, changes))


def changes_of(products: Collection[Product], levels: Mapping[str, int]) -> dict[int, Change]:
    """Return the change of each of these locked products, by primary key."""
    held = units_held([product.pk for product in products if product.warehouse_units is None])
    return {product.pk: change_of(product, levels[product.sku], held.get(product.pk, 0)) for product in products}


def change_of(product: Product, level: int, held: int) -> Change:
    """Return the change; `held` are units that orders hold of a product that is seen for the first time."""
    followed = product.warehouse_units
    wanted = level - held if followed is None else product.stock + level - followed
    # The stock does not go below zero. The stored level keeps the shortage, so the next run subtracts it when units
    # have come back.
    # What is over is added likewise, as soon as there is room.
    short, over = max(0, -wanted), max(0, wanted - HIGHEST_STOCK)
    return Change(wanted + short - over - product.stock, level + short - over, short, over)


def units_held(product_ids: Collection[int]) -> dict[int, int]:
    """Return how many units orders hold or have sold of these products, which must be locked; makes a query."""
    if not product_ids:
        return {}
    items = OrderItem.objects.filter(product__in=product_ids, order__status__in=HOLDS_STOCK).order_by()
    return dict(items.values_list("product").annotate(Sum("quantity")))


def oversold_among(products: Mapping[int, Product], changes: Mapping[int, Change]) -> dict[str, str]:
    return {
        products[pk].sku: f"{change.short} units too many are sold or reserved."
        for pk, change in changes.items()
        if change.short
    }


def unusable_among(products: Mapping[int, Product], changes: Mapping[int, Change]) -> dict[str, str]:
    over = {products[pk].sku: change.over for pk, change in changes.items() if change.over}
    return {sku: f"The stock has no room for {units} of these units." for sku, units in over.items()}


def corrected_among(products: Mapping[int, Product], changes: Mapping[int, Change]) -> dict[str, str]:
    first = {products[pk]: change for pk, change in changes.items() if products[pk].warehouse_units is None}
    return {p.sku: f"From {p.stock} to {p.stock + change.added}." for p, change in first.items() if change.added}


@transaction.atomic
def report_missing(run: InventorySync, seen: Collection[str]) -> None:
    run.hold(seen=len(seen))
    ours = Product.objects.on_sale().order_by("pk").values_list("sku", flat=True)
    record(run, Difference.UNKNOWN_THERE, {sku: "" for sku in ours.iterator() if sku not in seen})


def record(run: InventorySync, kind: Difference, details: Mapping[str, str]) -> None:
    rows: Iterable[InventoryDifference] = [
        InventoryDifference(sync=run, kind=kind, sku=sku, detail=detail) for sku, detail in details.items()
    ]
    InventoryDifference.objects.bulk_create(rows, batch_size=1000, ignore_conflicts=True)
