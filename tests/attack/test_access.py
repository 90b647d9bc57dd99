"""Who comes where: every address, for everybody, against the table in `access.csv`; and where pages lead.

`WRITE_ACCESS=1 pytest -m attack tests/attack/test_access.py` writes the table anew, for a person to read what changed.
"""

import csv
import fcntl
import os
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from accounts.models import User
from accounts.services import anonymise
from myproject.groups import declared
from tests.attack.addresses import ROLES, addresses, broken, client_of, make_person, outcome
from tests.attack.scripts import BODIES, operations, token_of

pytestmark = [pytest.mark.attack, pytest.mark.django_db, pytest.mark.timeout(1800)]

TABLE = Path(__file__).with_name("access.csv")
# What changes nothing is asked for by all; PUT and its like are no methods of the shop's.
METHODS = ("GET", "POST")
OTHERS = ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# In the admin a row's other pages ask as the page that changes it does, and its forms as the page that shows them.
SAME_AS_OTHERS = re.compile(r"^admin/.+/(history|<path:object_id>)/$|^admin/(r/|login)")
# Django's admin names the row that a read-only field leads to and links it for every reader; the row's page refuses.
BY_DJANGO = re.compile(r'(?:<div class="readonly">|<td class="field-\w+">\s*<p>)<a href="/admin/[^"]+/change/">')
LINK = re.compile(r'<(a|form)\b[^>]*?\b(?:href|action)="(/[^"#?]*)')


@pytest.fixture(autouse=True)
def as_in_production(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the lab be for staff with the permission, and start nothing."""
    settings.LAB_IS_OPEN = False
    monkeypatch.setattr("lab.runs.start", lambda slug: True)


def table_of(role: str) -> dict[tuple[str, str], str]:
    """Return what each address answers this role, by address and method."""
    cache.clear()
    person = make_person(role)
    fresh = client_of(person)
    found = addresses(person)
    asked = [(a, m) for a in sorted(found) for m in METHODS if m == "GET" or not a.startswith("admin/")]
    return {(a, m): outcome(fresh().generic, m, found[a]) for a, m in asked if not SAME_AS_OTHERS.search(a)}


def by_token(person: User | None, secret: str) -> dict[tuple[str, str], str]:
    """Return what the JSON API answers a script with this token, by address and what it asks for."""
    cache.clear()
    return {key: outcome(ask) for key, ask in operations(person, secret).items()}


def scripts_of(role: str) -> dict[tuple[str, str], str]:
    person = make_person(role)
    addresses(person)
    return by_token(person, token_of(person))


def known() -> dict[tuple[str, str], dict[str, str]]:
    with TABLE.open(newline="") as lines:
        return {(row["address"], row["method"]): row for row in csv.DictReader(lines)}


def is_of_scripts(key: tuple[str, str]) -> bool:
    return "by token" in key[1]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("ask", [table_of, scripts_of], ids=["browser", "script"])
def test_each_address_answers_each_role_as_the_table_says(ask: Callable[[str], Any], role: str) -> None:
    seen = ask(role)
    if os.environ.get("WRITE_ACCESS"):
        write(role, seen)

    table = {key: row for key, row in known().items() if is_of_scripts(key) == (ask is scripts_of)}
    expected = {key: row[role] for key, row in table.items()}
    assert {key: (expected.get(key), status) for key, status in seen.items() if status != expected.get(key)} == {}
    assert set(seen) == set(table)


def test_each_operation_that_takes_a_body_is_tried_with_one() -> None:
    described = Client().get("/api/v1/openapi.json").json()["paths"]

    assert {path.removeprefix("/") for path, methods in described.items() if "post" in methods} == set(BODIES)


@pytest.mark.parametrize(
    "end",
    [
        lambda person, settings: person.api_tokens.all().delete(),
        lambda person, settings: User.objects.filter(pk=person.pk).update(is_active=False),
        lambda person, settings: anonymise(person),
        lambda person, settings: setattr(settings, "STAFF_SECOND_FACTOR", True),
    ],
    ids=["revoked", "deactivated", "of a deleted account", "without a second factor"],
)
def test_token_that_has_ended_opens_nothing(end: Callable[[Any, Any], Any], settings: Any) -> None:
    person = make_person("administrator")
    secret = token_of(person)
    addresses(person)

    end(person, settings)

    stranger = {key: row["visitor"] for key, row in known().items() if is_of_scripts(key)}
    assert by_token(None, secret) == stranger
    assert "401" in stranger.values()


def test_token_of_who_is_staff_no_more_opens_what_a_customers_does() -> None:
    person = make_person("administrator")
    assert person is not None
    secret = token_of(person)
    addresses(person)

    User.objects.filter(pk=person.pk).update(is_staff=False)

    assert by_token(person, secret) == {key: row["customer"] for key, row in known().items() if is_of_scripts(key)}


def write(role: str, seen: dict[tuple[str, str], str]) -> None:
    with TABLE.with_suffix(".lock").open("w") as lock:
        # Roles may be tried side by side.
        fcntl.flock(lock, fcntl.LOCK_EX)
        table = known() if TABLE.exists() else {}
        with TABLE.open("w", newline="") as lines:
            rows = csv.DictWriter(lines, ["address", "method", *ROLES], restval="", lineterminator="\n")
            rows.writeheader()
            is_script = is_of_scripts(next(iter(seen)))
            for key in sorted(seen.keys() | {key for key in table if is_of_scripts(key) != is_script}):
                before = {name: table.get(key, {}).get(name, "") for name in ROLES}
                rows.writerow({"address": key[0], "method": key[1], **before, role: seen.get(key, before[role])})


@pytest.mark.parametrize("role", ["visitor", "customer", "administrator"])
def test_no_other_method_does_anything(role: str) -> None:
    person = make_person(role)
    fresh, found = client_of(person), addresses(person)

    seen = {(a, m): outcome(fresh().generic, m, found[a]) for a in found for m in OTHERS}

    assert broken(seen) == {}


@pytest.mark.parametrize("role", sorted(declared()))
def test_no_page_offers_what_its_reader_may_not_do(role: str) -> None:
    person = make_person(role)
    fresh = client_of(person)
    pages = {path: fresh().get(path) for path in addresses(person).values() if not path.startswith("/admin/r/")}

    offers = {
        (path, kind, unescape(target))
        for path, page in pages.items()
        if page.status_code == 200 and page.headers["Content-Type"].startswith("text/html")
        for kind, target in LINK.findall(BY_DJANGO.sub("", page.content.decode()))
    }

    methods = {"a": "GET", "form": "POST"}
    targets = {(kind, target) for _, kind, target in offers}
    refused = {one for one in targets if outcome(fresh().generic, methods[one[0]], one[1]) == "403"}
    assert {offer for offer in offers if offer[1:] in refused} == set()
    assert len(targets) > 20


def test_ready_made_groups_say_only_permissions_that_there_are() -> None:
    assert set(declared()) == {"support", "warehouse", "accounting", "operations"}
    make_person("support")
