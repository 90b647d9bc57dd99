"""Importing products from an uploaded file. Nothing here knows Celery; everything may be repeated."""

import logging
from collections.abc import Collection, Mapping, Sequence
from hashlib import file_digest
from itertools import islice
from uuid import UUID, uuid4, uuid5

from django.core.files.storage import default_storage
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.urls import reverse

from accounts.models import User
from accounts.services import notify
from durable.leases import LeaseLost
from myproject import texts
from myproject.storage.files import BY_UUID, delete_files, remove_orphans

from . import imports
from .models import (
    HIGHEST_STOCK,
    ImportStatus,
    Product,
    ProductImport,
    ProductImportQuerySet,
    RejectedRow,
    StockSeen,
    sku_key,
)
from .services import REFUSALS

log = logging.getLogger(__name__)

Line = imports.Row | imports.Fault

# Rows in one transaction: short enough not to delay orders that wait for its locks.
CHUNK = 1_000
# Rejected lines stored per import; further ones are only counted.
KEPT = 1_000
# Imports removed in one statement, each with up to so many rejected lines.
REMOVED_AT_ONCE = 5
BROKEN = (
    "The import stopped because of an error of ours, not of your file. Rows that were imported stay; "
    "upload the file again for the rest, nothing is imported twice."
)


def start_import(person: User, file: UploadedFile, token: UUID) -> ProductImport:
    """Store the file where every worker can read it, and note that it is to be imported; once per token and content."""
    # The same page may be sent again with another file.
    token = uuid5(token, file_digest(file, "sha256").hexdigest())
    file.seek(0)
    pk = uuid4()
    name = default_storage.save(f"imports/{pk}.csv", file)
    try:
        product_import, is_new = _note_import(person, file, token, pk, name)
    except BaseException:
        default_storage.delete(name)
        raise
    if not is_new:
        default_storage.delete(name)
    return product_import


@transaction.atomic
def _note_import(person: User, file: UploadedFile, token: UUID, pk: UUID, name: str) -> tuple[ProductImport, bool]:
    product_import, is_new = ProductImport.objects.get_or_create(
        requested_by=person,
        token=token,
        defaults={
            "pk": pk,
            "file": name,
            "original_name": (file.name or "")[-150:],
            "size": file.size or 0,
            **ProductImport.lease.fresh(),
        },
    )
    if is_new:
        StockSeen.objects.note(product_import)
    return product_import, is_new


def run_import(import_id: UUID | str) -> ProductImport | None:
    """Claim the import and continue it where it stopped; return it if this call ended it, in success or failure."""
    named = ProductImport.objects.filter(pk=import_id)
    for product_import in ProductImport.objects.claim(first=named, status=ImportStatus.RUNNING):
        log.info("Import %s is running", import_id)
        if import_file(product_import):
            return product_import
    return None


def import_file(product_import: ProductImport) -> bool:
    """Import the claimed file; True if this call ended the import."""
    try:
        with product_import.file.open() as file:
            if product_import.rows_total is None:
                product_import.mark_checked(imports.check(file))
            rows = islice(imports.read(file), product_import.rows_done, None)
            while chunk := list(islice(rows, CHUNK)):
                import_each(product_import, chunk)
    except imports.Refused as error:
        return bool(fail_imports(product_import.held(), str(error)))
    except LeaseLost as error:
        log.info("%s", error)
        return False
    return finish_import(product_import)


def import_each(product_import: ProductImport, rows: Sequence[Line], is_last: bool = False) -> None:
    """Import a chunk. Of one that the database refuses it imports each half, down to the row that it rejects.

    A single row is tried twice: somebody else may have added the same product at the first try.
    """
    try:
        import_chunk(product_import, rows)
    except REFUSALS as error:
        if is_last:
            import_chunk(product_import, [unwritable(rows[0], error)])
            return
        half = (len(rows) + 1) // 2
        for part in filter(None, (rows[:half], rows[half:])):
            import_each(product_import, part, is_last=len(rows) == 1)


def unwritable(row: Line, error: Exception) -> imports.Fault:
    if isinstance(row, imports.Fault):
        raise error
    log.warning("Line %s of an import: %r", row.line, error)
    told = [row.name, row.sku, str(row.price), str(row.stock), row.category]
    return imports.fault(row.line, f"The database refuses this row ({type(error).__name__}).", told)


@transaction.atomic
def import_chunk(product_import: ProductImport, chunk: Sequence[Line]) -> None:
    """Write a chunk and advance the import's row, atomically.

    The row is locked first, so a second worker on the same chunk waits, and then finds it done.
    """
    product_import.hold()
    rows = [row for row in chunk if isinstance(row, imports.Row)]
    known = lock_known(rows)
    seen = seen_by(product_import, known)
    wished = {row.line: wish(row, known.get(row.sku), seen.get(row.sku)) for row in rows}
    stocks = {row.sku: stock for row in rows if isinstance(stock := wished[row.line], int)}
    faults = [fault for line in chunk if isinstance(fault := wished.get(line.line, line), imports.Fault)]
    good = [row for row in rows if row.sku in stocks]
    created = upsert(good, known, stocks)
    room = max(0, KEPT - product_import.rejected_count)
    RejectedRow.objects.bulk_create(
        RejectedRow(product_import=product_import, **fault._asdict()) for fault in faults[:room]
    )
    product_import.mark_chunk_done(created=created, updated=len(good) - created, rejected=len(faults))


def lock_known(rows: Sequence[imports.Row]) -> dict[str, Product]:
    """Lock those products of these rows that the shop has; return them by their SKUs.

    In the order of the keys, as everywhere, and without the foreign keys, so that placing an order neither waits nor
    deadlocks. An order that wants to reserve waits for the end of the transaction.
    """
    locked = Product.objects.with_skus([row.sku for row in rows]).select_for_update(no_key=True).order_by("pk")
    theirs = {sku_key(product.sku): product for product in locked.only("sku", "slug", "stock", "imported")}
    return {row.sku: theirs[sku_key(row.sku)] for row in rows if sku_key(row.sku) in theirs}


def seen_by(product_import: ProductImport, known: Mapping[str, Product]) -> dict[str, int]:
    """Return the stock that the upload found of these locked products, with what imports have added to it since.

    A product that an import has added since then counts as seen, too: two uploads of one file count once.
    """
    seen = product_import.stock_seen.filter(product__in=known.values())
    units = dict(seen.values_list("product", "units"))
    return {sku: units.get(p.pk, 0) + p.imported for sku, p in known.items() if p.pk in units or p.imported}


def wish(row: imports.Row, product: Product | None, seen: int | None) -> int | imports.Fault:
    """Return the stock that the row wishes for, or why it cannot be.

    The row says how many units could be ordered at the upload. So not its number is the stock, but what it differs by
    from the stock of that moment changes the stock of now, whatever has moved that since: orders, refunds, the
    warehouse, the admin. A file that says what its author saw (`stock_seen`) changes only what was edited, and only
    where the upload found what the author had seen.
    """
    if product is None:
        return row.stock
    if row.stock == row.stock_seen or (seen is None and row.stock == product.stock):
        return product.stock
    if seen is None:
        return refuse(row, f"the product was added after the upload and has {product.stock}")
    if row.stock_seen not in (None, seen) and row.stock != seen:
        return refuse(row, f"the file was made at a stock of {row.stock_seen}, and the upload found {seen}")
    wanted = product.stock + row.stock - seen
    if wanted < 0:
        return refuse(row, f"the upload found {seen}, and of those only {product.stock} are left")
    if wanted > HIGHEST_STOCK:
        return refuse(row, f"with {product.stock - seen} units more since the upload it would be too many")
    return wanted


def refuse(row: imports.Row, why: str) -> imports.Fault:
    return imports.fault(row.line, f"stock {row.stock} was not taken over: {why}", [row.name, row.sku, str(row.stock)])


def upsert(rows: Sequence[imports.Row], known: Mapping[str, Product], stocks: Mapping[str, int]) -> int:
    """Create or update a product for each row, by its SKU, with that stock; return how many are new.

    `known` are locked. A new one that somebody else adds at the same moment raises `IntegrityError`.
    """
    slugs = Product.objects.slugs_for({row.sku: row.name for row in rows if row.sku not in known})
    products = [
        product_of(row, known.get(row.sku) or Product(sku=row.sku, slug=slugs[row.sku]), stocks[row.sku])
        # New ones in one order for all, too: two imports of the same new products must not wait for each other.
        for row in sorted(rows, key=lambda row: row.sku)
    ]
    fields = ["name", "category", "price", "stock", "imported", "description"]
    if rows and rows[0].description is None:
        fields.remove("description")
    new = [product for product in products if product.sku in slugs]
    old = [product for product in products if product.sku not in slugs]
    Product.objects.bulk_create(old, update_conflicts=True, unique_fields=["sku"], update_fields=fields)
    Product.objects.bulk_create(new)
    return len(slugs)


def product_of(row: imports.Row, old: Product, stock: int) -> Product:
    return Product(
        sku=old.sku,
        slug=old.slug,
        name=row.name,
        category=row.category,
        price=row.price,
        stock=stock,
        imported=old.imported + stock - old.stock,
        description=row.description or "",
    )


# --- The outcome: the transaction that ends the row also writes the notice, so that it is sent once ---


@transaction.atomic
def finish_import(product_import: ProductImport) -> bool:
    """End the import as done and notify its owner; False if another worker has."""
    if not product_import.mark_done():
        return False
    StockSeen.objects.filter(product_import=product_import).delete()
    counts = f"{product_import.created_count:,} new, {product_import.updated_count:,} updated"
    log.info("Import %s is done", product_import.pk)
    notify_of(product_import, "is done", f"{counts}, {product_import.rejected_count:,} rejected.")
    return True


@transaction.atomic
def fail_imports(rows: ProductImportQuerySet, reason: str = BROKEN) -> list[ProductImport]:
    """Fail those of these imports that are open, and notify their owners; return them."""
    failed = rows.mark_failed(reason)
    StockSeen.objects.filter(product_import__in=failed).delete()
    for product_import in failed:
        log.info("Import %s has failed", product_import.pk)
        notify_of(product_import, "has failed", reason)
    return failed


def notify_of(product_import: ProductImport, what: str, message: str) -> None:
    subject = f"Your import of {texts.isolated(product_import.original_name)} {what}"
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
