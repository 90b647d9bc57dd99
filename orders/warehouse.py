"""The warehouse's API: levels, page by page. They count goods received less goods lost; the shop counts its sales."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import requests
from django.conf import settings

from durable.errors import PermanentError, TemporaryError
from myproject import http

from .models import HIGHEST_STOCK

# Applied in one transaction.
PAGE_SIZE = 1_000
TIMEOUT_SECONDS = 10
MAX_SKU = 40


class Page(NamedTuple):
    """A page of levels in SKU order; `unusable` are invalid ones, each with the value received."""

    etag: str
    version: int
    levels: dict[str, int]
    unusable: dict[str, str]
    cursor: str

    @property
    def skus(self) -> list[str]:
        return sorted([*self.levels, *self.unusable])


def get_levels(cursor: str = "", etag: str = "") -> Page | None:
    """Return a page of levels; None when nothing has changed since `etag`. An empty cursor means the first page.

    Raises `TemporaryError` and `PermanentError`.
    """
    headers = {"Authorization": f"Bearer {settings.WAREHOUSE_TOKEN}"}
    if etag:
        headers["If-None-Match"] = etag
    parameters = {"limit": str(PAGE_SIZE)} | ({"cursor": cursor} if cursor else {})
    url = f"{settings.WAREHOUSE_URL}/levels"
    answer = http.request("GET", url, timeout=TIMEOUT_SECONDS, params=parameters, headers=headers)
    return None if answer.status_code == requests.codes.not_modified else _read(answer)


def pages(etag: str = "") -> Iterator[Page]:
    """Yield all pages of one version of the levels, none when nothing has changed since `etag`.

    Raises `TemporaryError`, also in the middle, and `PermanentError`.
    """
    page = first = get_levels(etag=etag)
    while page and first:
        yield page
        following = get_levels(page.cursor) if page.cursor else None
        if following and following.version != first.version:
            raise TemporaryError(f"The warehouse went from version {first.version} to {following.version} in between.")
        # Otherwise a cursor that leads back would make an endless loop.
        if following and not (page.skus and following.skus and page.skus[-1] < following.skus[0]):
            raise PermanentError("The warehouse's pages are not in the order of their SKUs.")
        page = following


def _read(answer: requests.Response) -> Page:
    try:
        told = answer.json()
    except ValueError as error:
        raise TemporaryError("The warehouse's answer is not JSON, or not all of it.") from error
    try:
        return _page(told, answer.headers.get("ETag", ""))
    except (LookupError, TypeError, ValueError) as error:
        # Nothing of it is checked yet, so whatever it lacks shows up as one of these.
        raise PermanentError(f"The warehouse's answer is not what was agreed ({error!r})."[:300]) from error


def _page(told: Any, etag: str) -> Page:
    levels: dict[str, int] = {}
    unusable: dict[str, str] = {}
    for level in told["levels"]:
        sku, units = level["sku"], level["units"]
        if not isinstance(sku, str) or not 0 < len(sku) <= MAX_SKU or "\0" in sku or sku in levels or sku in unusable:
            raise ValueError(f"SKU {sku!r}")
        if type(units) is int and 0 <= units <= HIGHEST_STOCK:
            levels[sku] = units
        else:
            unusable[sku] = f"It told {units!r} units."[:200]
    version, cursor = told["version"], told["next"] or ""
    if type(version) is not int or not 0 <= version < 2**63 or not isinstance(cursor, str):
        raise ValueError(f"version {version!r}, next {cursor!r}")
    return Page(etag[:100], version, levels, unusable, cursor)
