"""Taking products in from an uploaded file. None of this knows Celery; all of it may be repeated."""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import islice
from uuid import UUID, uuid4

from django.core.files.storage import default_storage
from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction
from django.db.models import Max, Sum
from django.urls import reverse

from accounts.models import User
from accounts.services import notify
from durable.errors import TemporaryError
from durable.leases import LeaseLost
from myproject.storage.files import BY_UUID, delete_files, remove_orphans

from . import imports
from .models import (
    ImportStatus,
    Kind,
    OrderEvent,
    Product,
    ProductImport,
    ProductImportQuerySet,
    RejectedRow,
)

log = logging.getLogger(__name__)

# Rows in one transaction: short enough that an order which waits for its products does not notice.
CHUNK = 1_000
# Rejected lines that are kept of one import; the others are only counted.
KEPT = 1_000
# Imports removed in one statement, each with up to so many rejected lines.
REMOVED_AT_ONCE = 5
# The events that move stock, and which way.
MOVES = {Kind.PROCESSING: -1, Kind.PAYMENT_FAILED: 1, Kind.REFUNDED: 1}
BROKEN = (
    "The import broke off through a fault of ours, not of your file. What it had taken in stays; "
    "upload the file again for the rest, nothing is doubled by that."
)


def start_import(person: User, file: UploadedFile, token: UUID) -> ProductImport:
    """Store the file where every worker can read it, and note that it is to be imported; once per token."""
    pk = uuid4()
    name = default_storage.save(f"imports/{pk}.csv", file)
    try:
        product_import, is_new = ProductImport.objects.get_or_create(
            requested_by=person,
            token=token,
            defaults={
                "pk": pk,
                "file": name,
                "original_name": (file.name or "")[-150:],
                "size": file.size or 0,
                "last_event_id": OrderEvent.objects.aggregate(last=Max("pk"))["last"] or 0,
                **ProductImport.lease.fresh(),
            },
        )
    except BaseException:
        default_storage.delete(name)
        raise
    if not is_new:
        default_storage.delete(name)
    return product_import


def run_import(import_id: UUID | str) -> ProductImport | None:
    """Claim the import and take its file in from where it stands; return it when this call ended it, well or not."""
    named = ProductImport.objects.filter(pk=import_id)
    for product_import in ProductImport.objects.claim(first=named, status=ImportStatus.RUNNING):
        log.info("Import %s is running", import_id)
        if take_in(product_import):
            return product_import
    return None


def take_in(product_import: ProductImport) -> bool:
    """Take the claimed import's file in; True when this call ended it. Raises `TemporaryError`."""
    try:
        with product_import.file.open() as file:
            if product_import.rows_total is None:
                product_import.mark_checked(imports.check(file))
            rows = islice(imports.read(file), product_import.rows_done, None)
            while chunk := list(islice(rows, CHUNK)):
                take_in_chunk(product_import, chunk)
    except imports.Refused as error:
        return bool(fail_imports(product_import.held(), str(error)))
    except LeaseLost as error:
        log.info("%s", error)
        return False
    except IntegrityError as error:
        raise TemporaryError("Somebody else wrote one of these products at the same moment.") from error
    return finish_import(product_import)


@transaction.atomic
def take_in_chunk(product_import: ProductImport, chunk: Sequence[imports.Row | imports.Fault]) -> None:
    """Write a chunk and move the import's row on, both or neither.

    The row is locked first, so a second worker on the same chunk waits, and then finds it done.
    """
    product_import.hold()
    rows = [row for row in chunk if isinstance(row, imports.Row)]
    faults = [fault for fault in chunk if isinstance(fault, imports.Fault)]
    created = upsert(rows, product_import.last_event_id)
    room = max(0, KEPT - product_import.rejected_count)
    RejectedRow.objects.bulk_create(
        RejectedRow(product_import=product_import, **fault._asdict()) for fault in faults[:room]
    )
    product_import.mark_chunk_done(created=created, updated=len(rows) - created, rejected=len(faults))


def upsert(rows: Sequence[imports.Row], last_event_id: int) -> int:
    """Create or update a product for each row, by its SKU; return how many are new.

    The file says how many units could be ordered when it was uploaded. What orders have reserved or given back
    since then, until this moment, is added to that under the products' locks: no reservation is lost. An order that
    wants more waits for the end of this transaction. The locks are taken in the order of the keys, as everywhere,
    and leave foreign keys alone, so that placing an order neither waits nor deadlocks.
    """
    locked = Product.objects.with_skus([row.sku for row in rows]).select_for_update(no_key=True).order_by("pk")
    theirs = {product.sku.upper(): product for product in locked.only("sku", "slug")}
    known = {row.sku: theirs[row.sku.upper()] for row in rows if row.sku.upper() in theirs}
    moved = moved_since(last_event_id, [product.pk for product in known.values()])
    slugs = Product.objects.slugs_for({row.sku: row.name for row in rows if row.sku not in known})
    products = [
        Product(
            sku=known[row.sku].sku if row.sku in known else row.sku,
            slug=known[row.sku].slug if row.sku in known else slugs[row.sku],
            name=row.name,
            category=row.category,
            price=row.price,
            # Below zero when more was sold than the file knew of: there is nothing left to order then.
            stock=max(0, row.stock + moved[known[row.sku].pk]) if row.sku in known else row.stock,
            description=row.description or "",
        )
        # New ones in one order for all, too: two imports of the same new products must not wait for each other.
        for row in sorted(rows, key=lambda row: row.sku)
    ]
    fields = [name for name in imports.REQUIRED + imports.OPTIONAL if name != "sku"]
    if rows and rows[0].description is None:
        fields.remove("description")
    Product.objects.bulk_create(products, update_conflicts=True, unique_fields=["sku"], update_fields=fields)
    return len(slugs)


def moved_since(last_event_id: int, product_ids: Sequence[int]) -> Counter[int]:
    """Return by how many units orders have changed the stock of these products since that event; makes a query."""
    events = OrderEvent.objects.filter(
        pk__gt=last_event_id, kind__in=MOVES, order__items__product__in=product_ids
    ).values_list("order__items__product", "kind")
    moved: Counter[int] = Counter()
    for product_id, kind, units in events.annotate(units=Sum("order__items__quantity")).order_by():
        moved[product_id] += MOVES[Kind(kind)] * units
    return moved


# --- The outcome: the transaction that ends the row also writes the notice, so that it is sent once ---


@transaction.atomic
def finish_import(product_import: ProductImport) -> bool:
    """End the import as done and notify who asked for it; False when another worker has."""
    if not product_import.mark_done():
        return False
    counts = f"{product_import.created_count:,} new, {product_import.updated_count:,} updated"
    log.info("Import %s is done", product_import.pk)
    notify_of(product_import, "is done", f"{counts}, {product_import.rejected_count:,} rejected.")
    return True


@transaction.atomic
def fail_imports(rows: ProductImportQuerySet, reason: str = BROKEN) -> list[ProductImport]:
    """End those of these imports that are open as failed, and notify who asked for them; return them."""
    failed = rows.mark_failed(reason)
    for product_import in failed:
        log.info("Import %s has failed", product_import.pk)
        notify_of(product_import, "has failed", reason)
    return failed


def notify_of(product_import: ProductImport, what: str, message: str) -> None:
    subject = f"Your import of {product_import.original_name} {what}"
    notify(product_import.requested_by, subject, message, reverse("orders:import-detail", args=[product_import.pk]))


# --- Clean-up ---


def remove_old_imports() -> int:
    """Remove imports that ended long ago, with their rejected lines and their files; return how many.

    The row goes first: a crash in between leaves a file without one, which `remove_orphaned_files` finds.
    """
    removed = 0
    old = ProductImport.objects.old().order_by("finished_at").values_list("pk", "file")
    while files := dict(old[:REMOVED_AT_ONCE]):
        ProductImport.objects.filter(pk__in=files).delete()
        delete_files(files.values())
        removed += len(files)
    log.info("Removed %s old imports", removed)
    return removed


def remove_orphaned_files() -> int:
    """Remove files that a web process stored and did not live to write a row for; return how many."""
    return remove_orphans("imports", BY_UUID, named_files)


def named_files(paths: Collection[str]) -> Collection[str]:
    return ProductImport.objects.filter(file__in=paths).values_list("file", flat=True)
