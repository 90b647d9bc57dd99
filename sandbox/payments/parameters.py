"""Request parameters, checked as Stripe checks them. Invalid ones raise `Refused`."""

import base64
import binascii
import re
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from tornado.web import HTTPError

from .. import currencies
from ..currencies import money
from .cards import CARDS
from .ledger import NewCharge

MAX_NUMBER = 2**62

Parameters = dict[str, Any]


class Refused(HTTPError):
    """A rejected request, with the error that Stripe would return."""

    def __init__(self, status: int, kind: str, message: str, **fields: str) -> None:
        super().__init__(status)
        self.error = {"type": kind, "message": message, **fields}


def invalid(message: str, status: int = 400, **fields: str) -> Refused:
    return Refused(status, "invalid_request_error", message, **fields)


def missing(kind: str, identifier: str, status: int = 400, **fields: str) -> Refused:
    return invalid(f"No such {kind}: '{identifier}'", status, code="resource_missing", **fields)


def new_charge(parameters: Parameters) -> NewCharge:
    amount, currency = whole_number(parameters, "amount"), required(parameters, "currency").lower()
    if currency not in currencies.ALL:
        raise invalid(f"Invalid currency: {currency}", param="currency")
    if amount % (step := currencies.step(currency)):
        raise invalid(f"Amounts in {currency} must be a multiple of {step}.", param="amount")
    if amount > (most := currencies.largest(currency)):
        message = f"Amount must be no more than {money(most, currency)}"
        raise invalid(message, code="amount_too_large", param="amount")
    if text(parameters, "confirm") != "true":
        raise invalid("The sandbox charges at once or not at all: send confirm=true.", param="confirm")
    method = required(parameters, "payment_method")
    if method not in CARDS:
        raise missing("PaymentMethod", method, param="payment_method")
    description = text(parameters, "description")
    return NewCharge(amount, currency, method, CARDS[method].decline_code, description, metadata_of(parameters))


def nested(fields: Sequence[tuple[str, str]]) -> Parameters:
    """Turn form fields such as metadata[order]=7 into {"metadata": {"order": "7"}}."""
    tree: Parameters = {}
    for name, value in fields:
        *parents, leaf = re.findall(r"[^\[\]]+", name) or [""]
        branch: Any = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if not isinstance(branch, dict):
                raise invalid(f"Invalid parameter: {name}", param=name)
        branch[leaf] = value
    return tree


def text(parameters: Parameters, name: str) -> str | None:
    value = parameters.get(name)
    if value is None or isinstance(value, str):
        return value
    raise invalid(f"Invalid string: {name}", param=name)


def required(parameters: Parameters, name: str) -> str:
    value = text(parameters, name)
    if not value:
        raise invalid(f"Missing required param: {name}.", code="parameter_missing", param=name)
    return value


def whole_number(parameters: Parameters, name: str, at_least: int = 1) -> int:
    value = required(parameters, name)
    if not re.fullmatch("[+-]?[0-9]{1,18}", value):
        raise invalid(f"Invalid integer: {value}", code="parameter_invalid_integer", param=name)
    if int(value) < at_least:
        message = f"This value must be greater than or equal to {at_least}."
        raise invalid(message, code="parameter_invalid_integer", param=name)
    return int(value)


def metadata_of(parameters: Parameters) -> dict[str, str]:
    metadata = parameters.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise invalid("Metadata must be pairs of strings.", param="metadata")
    return metadata


def list_parameters(query: str, kind: str, find: Callable[[str], sqlite3.Row | None]) -> dict[str, Any]:
    """Read a list's filters; the limit is one more than requested, to see whether there are more."""
    asked = nested(parse_qsl(query))
    limit = whole_number(asked, "limit") if "limit" in asked else 10
    before = MAX_NUMBER
    if after := text(asked, "starting_after"):
        row = find(after)
        if row is None:
            raise missing(kind, after, param="starting_after")
        before = row["number"]
    return {**bounds_of(asked.get("created", {})), "before": before, "limit": min(limit, 100) + 1}


def bounds_of(created: object) -> dict[str, int]:
    """Return all four bounds of a time range, from created=7 or from created[gte]=7."""
    asked = created if isinstance(created, dict) else {"gte": created, "lte": created}
    bounds = {"gte": 0, "gt": -1, "lte": MAX_NUMBER, "lt": MAX_NUMBER}
    return bounds | {name: whole_number(asked, name, at_least=0) for name in asked.keys() & bounds.keys()}


def api_key(authorization: str) -> str:
    """Return the secret key from a Bearer header, or from the user name of a Basic header."""
    scheme, _, credentials = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        return credentials.strip() if scheme.lower() == "bearer" else ""
    try:
        return base64.b64decode(credentials).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""
