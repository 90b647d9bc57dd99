"""What a script sends to each operation of the JSON API."""

import json
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from django.test import Client
from django.test.client import MULTIPART_CONTENT, encode_multipart

from accounts.models import ApiToken, User
from orders.models import Card
from reports.models import Format, Kind
from tests.attack.addresses import filled, patterns
from tests.attack.forms import PRODUCTS
from tests.factories import make_import, make_report, make_user, place_order

API = "api/v1/"
BOUNDARY = "of-the-test"
MULTIPART = MULTIPART_CONTENT.partition(";")[0] + f"; boundary={BOUNDARY}"
REPORT = {"format": Format.CSV, "start": "2026-01-01", "end": "2026-01-31"}
# For each address that takes a POST what is sent, by what it is called. The product is that of `addresses`.
BODIES: dict[str, dict[str, Any]] = {
    f"{API}orders/": {"an order": {"items": [{"sku": "LAMP-1", "quantity": 1}], "card": Card.VISA}},
    f"{API}imports/": {"a file": PRODUCTS},
    f"{API}reports/": {
        "an own statement": REPORT | {"kind": Kind.STATEMENT},
        "a report of all": REPORT | {"kind": Kind.SALES},
    },
}


def encoded(body: Any) -> tuple[bytes, str]:
    """Return the body as it is sent, and its type; text is a file."""
    if isinstance(body, bytes):
        return encode_multipart(BOUNDARY, {"file": File(body)}), MULTIPART
    return json.dumps(body).encode(), "application/json"


class File:
    name = "products.csv"
    content_type = "text/csv"

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self) -> bytes:
        return self.content


def headers_of(secret: str, key: str = "") -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"} | ({"Idempotency-Key": key} if key else {})


def operations(person: User | None, secret: str) -> dict[tuple[str, str], Callable[[], Any]]:
    """Return what asks for each operation with this token, by its address and what it does."""
    kinds = {"of their own": rows_of(person or make_user()), "of another": rows_of(make_user())}
    found: dict[tuple[str, str], Callable[[], Any]] = {}
    for pattern in patterns():
        if not pattern.startswith(API):
            continue
        if "<" not in pattern:
            found[pattern, "GET by token"] = partial(ask, secret, "GET", f"/{pattern}")
            for name, body in BODIES.get(pattern, {"nothing": {}}).items():
                found[pattern, f"POST by token: {name}"] = partial(ask, secret, "POST", f"/{pattern}", body)
            continue
        for name, rows in kinds.items():
            values = next(values for start, values in rows.items() if pattern.startswith(start))
            found[pattern, f"GET by token: one {name}"] = partial(ask, secret, "GET", f"/{filled(pattern, values)}")
    return found


def ask(secret: str, method: str, path: str, body: Any = None) -> Any:
    data, kind = encoded(body or {}) if method == "POST" else (b"", "")
    client = Client(raise_request_exception=False)
    return client.generic(method, path, data, kind, headers=headers_of(secret, str(uuid.uuid4())))


def rows_of(person: User) -> dict[str, dict[str, Any]]:
    return {
        f"{API}orders/": {"reference": place_order(customer=person).reference},
        f"{API}imports/": {"pk": make_import("sku\n", requested_by=person).pk},
        f"{API}reports/": {"pk": make_report(person, end="2026-01-30").pk},
    }


def token_of(person: User | None) -> str:
    return ApiToken.objects.make(person, "script") if person else "of-nobody"
