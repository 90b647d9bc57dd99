"""Asking before rows are changed: what the page said of each is compared with what is so now."""

import json
from collections.abc import Mapping

from django.http import HttpRequest

# Below DATA_UPLOAD_MAX_NUMBER_FIELDS, since the page that asks for confirmation sends all of them back.
MAX_CONFIRMED = 500


def seen_by(request: HttpRequest) -> dict[str, str]:
    """Return what the page said of each row that it asked about; empty before it has asked."""
    try:
        seen = json.loads(request.POST.get("seen", "{}"))
    except (ValueError, RecursionError):
        return {}
    return {pk: str(said) for pk, said in seen.items()} if isinstance(seen, dict) else {}


def why_not(seen: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say which of the rows that the page showed are different now; empty where none is."""
    changed = [f"“{seen[pk]}”" for pk in seen if seen[pk] != now.get(pk)]
    return f"Nothing was done, since this is no longer so: {', '.join(changed)}. Please look again." if changed else ""
