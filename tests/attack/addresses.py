"""Every address of the shop, with rows behind it, and the people who come to it."""

import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, get_resolver

from accounts.models import User
from accounts.unsubscribe import signer
from myproject.groups import declared, make_groups
from orders.models import InventorySync, Status
from reports import downloads
from tests.factories import (
    make_import,
    make_pack,
    make_product,
    make_report,
    make_schedule,
    make_user,
    place_order,
    put,
)
from tests.test_admin import ROWS

GROUPS = tuple(sorted(declared()))
ROLES = ("visitor", "customer", "staff", *GROUPS, "administrator")
PART = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>(?:[^()]|\([^()]*\))+\)")


def make_person(role: str) -> User | None:
    """Make somebody of that role; None is a visitor, who has no account."""
    if role == "visitor":
        return None
    is_admin = role == "administrator"
    person = make_user(name=role.title(), is_staff=role != "customer", is_superuser=is_admin)
    make_groups()
    person.groups.set(Group.objects.filter(name=role))
    return person


def patterns(under: Any = None, before: str = "") -> Iterator[str]:
    """Yield the address of each route as its pattern says it."""
    for row in (under or get_resolver()).url_patterns:
        route = before + str(row.pattern).removeprefix("^").removesuffix("$")
        if isinstance(row, URLPattern):
            yield route
        else:
            yield from patterns(row, route)


def addresses(person: User | None) -> dict[str, str]:
    """Return an address for each route, by its pattern, with rows of others behind it, and reports of the person."""
    product, order = make_product(slug="lamp", sku="LAMP-1"), put(place_order(), Status.COMPLETED)
    report = make_report(person or make_user(is_staff=True))
    keys: dict[str, Any] = {
        "orders/": {"reference": order.reference},
        "api/v1/orders/": {"reference": order.reference},
        "api/v1/imports/": {"pk": make_import("sku\n").pk},
        "api/v1/reports/": {"pk": report.pk},
        "people/tokens/": {"pk": 1},
        "imports/": {"pk": make_import("sku\n").pk},
        "warehouse/": {"pk": InventorySync.objects.open_one().pk},
        "reports/packs/": {"pk": make_pack(person or make_user(is_staff=True)).pk},
        "reports/schedules/": {"pk": make_schedule().pk},
        "reports/files/": {"token": downloads.sign(report, report.requested_by)},
        "reports/": {"pk": report.pk},
        "people/unsubscribe/": {"token": signer.sign_object([order.customer_id, "digest"])},
        "try-it/": {"name": "add"},
        "people/sign-in-as/": {"role": "customer"},
        "lab/files/": {"path": "orders/tasks.py"},
        "lab/": {"slug": "wiped-redis"},
    } | {f"admin/{m._meta.label_lower.replace('.', '/')}/": row_of(m) for m in admin.site._registry}
    common: dict[str, Any] = {
        "slug": product.slug,
        "digest": "0" * 32,
        "width": "400",
        "key": "x-1",
        "uidb36": "1",
        "app_label": "orders",
    }
    common |= {"content_type_id": "1", "object_id": "1", "url": "nowhere", "id": "1"}
    found = {}
    for pattern in dict.fromkeys(patterns()):
        own: dict[str, Any] = next((values for start, values in keys.items() if pattern.startswith(start)), {})
        found[pattern] = "/" + filled(pattern, common | own)
    return found


def row_of(model: Any) -> dict[str, Any]:
    pk = ROWS[model]().pk
    return {"object_id": pk, "id": pk, "pk": pk}


def filled(pattern: str, values: dict[str, Any]) -> str:
    text = PART.sub(lambda found: str(values[found[1] or found[2]]), pattern)
    return text.replace("\\.", ".").replace("^", "").replace("(?", "").replace("\\Z", "")


def client_of(person: User | None) -> Callable[[], Client]:
    """Return what makes a fresh browser of this person."""
    known = Client(raise_request_exception=False)
    if person:
        known.force_login(person)

    def fresh() -> Client:
        client = Client(raise_request_exception=False)
        client.cookies = type(known.cookies)(known.cookies.output(header="", sep=";"))
        return client

    return fresh


def outcome(ask: Callable[..., Any], *args: Any) -> str:
    """Return the status of an answer, or that it leads to the login; what was written is taken back."""
    point = transaction.savepoint()
    answer = ask(*args)
    transaction.savepoint_rollback(point)
    where = answer.headers.get("Location", "")
    is_login = answer.status_code == HTTPStatus.FOUND and where.startswith(("/accounts/login/", "/admin/login/"))
    return "login" if is_login else str(answer.status_code)


def broken(seen: dict[Any, str]) -> dict[Any, str]:
    """Return those of the outcomes that are a fault of ours."""
    return {key: status for key, status in seen.items() if status.startswith("5")}
