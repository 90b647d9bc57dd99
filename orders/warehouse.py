"""The warehouse's API: levels, page by page. They count goods received less goods lost; the shop counts its sales."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import requests
from django.conf import settings

from durable.errors import PermanentError, TemporaryError
from myproject import http, texts

from .models import HIGHEST_STOCK

# Applied in one transaction.
PAGE_SIZE = 1_000
TIMEOUT_SECONDS = 10
MAX_SKU, MAX_ETAG = 40, 100


class Page(NamedTuple):
    """A page of levels in SKU order; `unusable` are rows that cannot be applied, each by its name with the reason."""

    etag: str
    version: int
    levels: dict[str, int]
    unusable: dict[str, str]
    cursor: str
    # The first and the last SKU as they were told.
    ends: tuple[str, str] = ("", "")

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
        if following and not page.ends[1] < following.ends[0]:
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
    rows: list[Any] = told["levels"]
    if not isinstance(rows, list):
        raise TypeError(f"levels {type(rows).__name__}")
    levels: dict[str, int] = {}
    unusable: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        name, units, fault = _level(row, number)
        if name in levels or name in unusable:
            levels.pop(name, None)
            unusable[name] = "It is told more than once."
        elif fault:
            unusable[name] = fault
        else:
            levels[name] = units
    version, cursor = told["version"], told["next"] or ""
    if type(version) is not int or not 0 <= version < 2**63 or not isinstance(cursor, str):
        raise ValueError(f"version {version!r}, next {cursor!r}")
    # Half of a surrogate pair cannot be sent back: a ValueError, too.
    cursor.encode()
    skus = sorted(row["sku"] for row in rows if isinstance(row, dict) and isinstance(row.get("sku"), str))
    # One that cannot be kept, and sent back as it is, would match nothing.
    kept = etag if len(etag) <= MAX_ETAG and etag.isascii() and etag.isprintable() else ""
    return Page(kept, version, levels, unusable, cursor, (skus[0], skus[-1]) if skus else ("", ""))


def _level(row: Any, number: int) -> tuple[str, int, str]:
    """Return the row's SKU, its units, and why it cannot be applied; what cannot be a SKU is named by what it shows."""
    told: dict[str, Any] = row if isinstance(row, dict) else {}
    sku, units = told.get("sku"), told.get("units")
    shown = texts.show(sku)[:MAX_SKU].strip() if isinstance(sku, str) else ""
    if not isinstance(sku, str) or not shown:
        return f"Row {number}", 0, f"It told {sku!r} as its SKU."
    if not _can_be_sku(sku):
        return shown, 0, f"Its SKU is longer than {MAX_SKU}, or holds what cannot be shown."
    if type(units) is not int or not 0 <= units <= HIGHEST_STOCK:
        return sku, 0, f"It told {units!r} units."
    return sku, units, ""


def _can_be_sku(sku: str) -> bool:
    try:
        return bool(texts.clean_words(sku)) and len(sku) <= MAX_SKU
    except texts.Unprintable:
        return False
