"""Pictures in the storage: an upload is kept for a worker, which makes and publishes thumbnails of it."""

import hashlib
import logging
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.db import transaction

from . import pictures
from .models import PictureStatus, Product

log = logging.getLogger(__name__)


def upload_picture(product: Product, file: File, kind: str) -> None:
    """Keep a picture that was checked, for a worker to make thumbnails of; `kind` is its ending."""
    old = product.picture.name
    product.mark_picture_pending(default_storage.save(f"pictures/{uuid.uuid4()}.{kind}", file))
    transaction.on_commit(lambda: delete_files([old or ""]), robust=True)


def remove_picture(product: Product) -> None:
    files = [product.picture.name or "", *thumbnail_files(product.thumbnails)]
    product.mark_picture_removed()
    transaction.on_commit(lambda: delete_files(files), robust=True)


def make_thumbnails(product: Product) -> bool:
    """Make and publish the thumbnails of a pending picture; False when there is nothing to do, or to show."""
    if product.picture_status != PictureStatus.PENDING:
        log.info("Picture of product %s: nothing to do", product.pk)
        return False
    try:
        with product.picture.open() as original:
            made = pictures.thumbnails(original)
    except FileNotFoundError:
        return end_picture(product, "The uploaded file is gone.")
    except pictures.Unusable as error:
        return end_picture(product, str(error))
    return publish_thumbnails(product, made)


def publish_thumbnails(product: Product, made: Mapping[int, bytes]) -> bool:
    """Write the files under a name that is theirs for ever, then let the row name them, then drop the old ones."""
    digest = hashlib.sha256(b"".join([str(product.pk).encode(), *made.values()])).hexdigest()[:32]
    for width, name in zip(made, thumbnail_files(digest), strict=True):
        if not default_storage.exists(name):
            # Aside first: a name that others may read is only ever given to a whole file.
            publish(name, made[width])
    if not product.mark_picture_ready(digest):
        log.info("Picture of product %s: a newer one was uploaded meanwhile", product.pk)
        return False
    log.info("Picture of product %s is ready", product.pk)
    if product.thumbnails != digest:
        delete_files(thumbnail_files(product.thumbnails))
    return True


def publish(name: str, content: bytes) -> None:
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


def delete_files(names: Iterable[str]) -> None:
    for name in filter(None, names):
        default_storage.delete(name)
