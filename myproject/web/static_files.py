"""Static files of production: one that was not collected costs a page its style, never the page."""

import logging
from functools import cache
from typing import Any

from django.contrib.staticfiles.finders import get_finders
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.checks import CheckMessage, Error, Tags, register
from whitenoise.storage import CompressedManifestStaticFilesStorage

log = logging.getLogger(__name__)


class Storage(CompressedManifestStaticFilesStorage):
    def stored_name(self, name: str) -> str:
        """Return the name with its hash, or as it is where the manifest lacks it."""
        try:
            return str(super().stored_name(name))
        except ValueError:
            log_missing(name)
            return name


@cache
def log_missing(name: str) -> None:
    # Once for each file and process, not for each visitor.
    log.error("The static file %s was not collected: run `manage.py collectstatic`, then restart the web", name)


@register(Tags.staticfiles, deploy=True)
def check_collected(**kwargs: Any) -> list[CheckMessage]:
    """Compare the manifest with the files that the apps have; nothing is served by it on a laptop."""
    known = getattr(staticfiles_storage, "hashed_files", None)
    if known is None:
        return []
    files = {path.replace("\\", "/") for finder in get_finders() for path, _ in finder.list([])}
    missing = sorted(files - known.keys())
    if not missing:
        return []
    what = f"{len(missing)} static files were not collected, {missing[0]} for one: pages have no style."
    return [Error(what, "Run `manage.py collectstatic`, then restart the web.", id="myproject.E001")]
