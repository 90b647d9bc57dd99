"""Files in the storage that rows name, and what is left of them where a row does not."""

import logging
import re
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import timedelta

from celery.exceptions import SoftTimeLimitExceeded
from django.core.files import File
from django.core.files.storage import Storage, default_storage
from django.utils import timezone

from durable.errors import TemporaryError

log = logging.getLogger(__name__)

# A file that no row names is perhaps still being written; not for as long as this.
ORPHANED_AFTER = timedelta(days=1)
# Files that one query asks about.
CHUNK = 500
BY_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def save_whole(name: str, file: File, storage: Storage) -> str:
    """Save the file, of which nothing stays when the storage refuses or the time is over.

    Raises `TemporaryError`, or the task's `SoftTimeLimitExceeded`.
    """
    try:
        return storage.save(name, file)
    # Each storage has errors of its own.
    except Exception as error:
        with suppress(Exception):
            storage.delete(name)
        # The time that is over is the task's, and no fault of the storage.
        if isinstance(error, TemporaryError | SoftTimeLimitExceeded):
            raise
        why = getattr(error, "strerror", None) or type(error).__name__
        raise TemporaryError(f"The storage did not take the file: {why}.") from error


def delete_files(names: Iterable[str]) -> None:
    for name in filter(None, names):
        default_storage.delete(name)


def remove_orphans(
    folder: str,
    ours: re.Pattern[str],
    named: Callable[[Collection[str]], Collection[str]],
    storage: Storage = default_storage,
) -> int:
    """Remove the folder's files that no row names; return how many.

    Only those whose name begins with the pattern `ours`: what was put there by hand is left alone. `named` returns
    which of some paths, all those that rows name among them.
    """
    names = [f"{folder}/{name}" for name in files_in(folder, storage) if ours.match(name)]
    removed = 0
    for start in range(0, len(names), CHUNK):
        paths = names[start : start + CHUNK]
        removed += sum(remove_if_old(path, storage) for path in set(paths).difference(named(paths)))
    log.info("Removed %s files of %s that no row names", removed, folder)
    return removed


def files_in(folder: str, storage: Storage = default_storage) -> list[str]:
    try:
        return list(storage.listdir(folder)[1])
    except FileNotFoundError:
        return []


def remove_if_old(path: str, storage: Storage) -> bool:
    try:
        if is_old := timezone.now() - storage.get_modified_time(path) > ORPHANED_AFTER:
            storage.delete(path)
    except FileNotFoundError:
        # Deleted by another run, or by its owner.
        return False
    except OSError as error:
        # The others can be removed all the same.
        log.warning("%s was not removed: %s", path, error)
        return False
    return is_old
