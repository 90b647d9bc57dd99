"""Pictures in the storage: an upload is stored, and a worker makes and publishes its thumbnails."""

import hashlib
import logging
import re
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import transaction

from durable.errors import TemporaryError
from myproject.storage.files import BY_UUID, delete_files, remove_orphans

from . import pictures
from .models import Product

log = logging.getLogger(__name__)

THUMBNAIL = re.compile(r"[0-9a-f]{32}-")


def store_picture(file: File, kind: str) -> str:
    """Keep a picture that was checked, and return its name; `kind` is its ending."""
    return str(default_storage.save(f"pictures/{uuid.uuid4()}.{kind}", file))


def use_picture(product: Product, name: str) -> None:
    """Have a worker make thumbnails of the stored picture, in place of the product's own."""
    old = product.picture.name
    product.mark_picture_pending(name)
    transaction.on_commit(lambda: delete_files([old or ""]), robust=True)


def remove_picture(product: Product) -> None:
    files = [product.picture.name or "", *thumbnail_files(product.thumbnails)]
    product.mark_picture_removed()
    transaction.on_commit(lambda: delete_files(files), robust=True)


def make_thumbnails(product_id: int) -> bool:
    """Make and publish the thumbnails of a pending picture; False when there is nothing to do, or to show.

    Raises `TemporaryError` when the storage does not answer; that is not counted as an attempt.
    """
    claimed = Product.objects.claim(first=Product.objects.filter(pk=product_id))
    if not claimed:
        log.info("Picture of product %s: nothing to do", product_id)
        return False
    (product,) = claimed
    try:
        return attempt(product)
    except TemporaryError:
        product.release_picture()
        raise


def attempt(product: Product) -> bool:
    try:
        with product.picture.open() as original:
            made = pictures.thumbnails(original)
    except FileNotFoundError:
        return end_picture(product, "The uploaded file is gone.")
    except pictures.Unusable as error:
        return end_picture(product, str(error))
    return publish_thumbnails(product, made)


def publish_thumbnails(product: Product, made: Mapping[int, bytes]) -> bool:
    """Write the files under a permanent name, then point the row to them, then delete the old ones."""
    # With the token, so that no name ever comes back: a worker that deletes too late deletes nothing that is shown.
    digest = hashlib.sha256(b"".join([product.picture_claimed_by.encode(), *made.values()])).hexdigest()[:32]
    for width, name in zip(made, thumbnail_files(digest), strict=True):
        # Also if it exists: an orphan could be removed at this moment, unless it is new.
        publish(name, made[width])
    if not product.mark_picture_ready(digest):
        log.info("Picture of product %s: a newer one was uploaded meanwhile", product.pk)
        delete_files(thumbnail_files(digest))
        return False
    log.info("Picture of product %s is ready", product.pk)
    if product.thumbnails != digest:
        delete_files(thumbnail_files(product.thumbnails))
    return True


def publish(name: str, content: bytes) -> None:
    # A public name is given to a complete file only; on a disk, that takes a temporary file first.
    if not isinstance(default_storage, FileSystemStorage):
        default_storage.save(name, ContentFile(content))
        return
    path = Path(default_storage.path(name))
    aside = Path(default_storage.path(default_storage.save(f"{name}.part", ContentFile(content))))
    aside.replace(path)


def end_picture(product: Product, reason: str) -> bool:
    if product.mark_picture_failed(reason):
        log.warning("Picture of product %s failed: %s", product.pk, reason)
    return False


def thumbnail_files(digest: str) -> list[str]:
    """Return the names in the storage, in the order of the widths; none for an empty digest."""
    return [f"thumbnails/{digest}-{width}.webp" for width in pictures.WIDTHS] if digest else []


# --- Clean-up ---


def remove_orphaned_pictures() -> int:
    """Remove originals and thumbnails that no product names; return how many."""
    return remove_orphans("pictures", BY_UUID, named_originals) + remove_orphans(
        "thumbnails", THUMBNAIL, named_thumbnails
    )


def named_originals(paths: Collection[str]) -> Collection[str]:
    return Product.objects.filter(picture__in=paths).values_list("picture", flat=True)


def named_thumbnails(paths: Collection[str]) -> Collection[str]:
    digests = {Path(path).name[:32] for path in paths}
    shown = Product.objects.filter(thumbnails__in=digests).values_list("thumbnails", flat=True)
    return [name for digest in shown for name in thumbnail_files(digest)]
