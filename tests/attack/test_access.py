"""Who comes where: every address, for everybody, against the table in `access.csv`; and where pages lead.

`WRITE_ACCESS=1 pytest -m attack tests/attack/test_access.py` writes the table anew, for a person to read what changed.
"""

import csv
import fcntl
import os
import re
from html import unescape
from pathlib import Path

import pytest
from django.core.cache import cache

from myproject.groups import declared
from tests.attack.addresses import ROLES, addresses, broken, client_of, make_person, outcome

pytestmark = [pytest.mark.attack, pytest.mark.django_db, pytest.mark.timeout(900)]

TABLE = Path(__file__).with_name("access.csv")
# What changes nothing is asked for by all; PUT and its like are no methods of the shop's.
METHODS = ("GET", "POST")
OTHERS = ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# In the admin a row's other pages ask as the page that changes it does, and its forms as the page that shows them.
SAME_AS_OTHERS = re.compile(r"^admin/.+/(history|<path:object_id>)/$|^admin/(r/|login)")
# Django's admin names the row that a read-only field leads to and links it, whoever reads; the row's page refuses.
BY_DJANGO = re.compile(r"/admin/.+/change/")
LINK = re.compile(r'<(a|form)\b[^>]*?\b(?:href|action)="(/[^"#?]*)')


def table_of(role: str) -> dict[tuple[str, str], str]:
    """Return what each address answers this role, by address and method."""
    cache.clear()
    person = make_person(role)
    fresh = client_of(person)
    found = addresses(person)
    asked = [(a, m) for a in sorted(found) for m in METHODS if m == "GET" or not a.startswith("admin/")]
    return {(a, m): outcome(fresh().generic, m, found[a]) for a, m in asked if not SAME_AS_OTHERS.search(a)}


def known() -> dict[tuple[str, str], dict[str, str]]:
    with TABLE.open(newline="") as lines:
        return {(row["address"], row["method"]): row for row in csv.DictReader(lines)}


@pytest.mark.parametrize("role", ROLES)
def test_each_address_answers_each_role_as_the_table_says(role: str) -> None:
    seen = table_of(role)
    if os.environ.get("WRITE_ACCESS"):
        write(role, seen)

    table = known()
    expected = {key: row[role] for key, row in table.items()}
    assert {key: (expected.get(key), status) for key, status in seen.items() if status != expected.get(key)} == {}
    assert set(seen) == set(table)


def write(role: str, seen: dict[tuple[str, str], str]) -> None:
    with TABLE.with_suffix(".lock").open("w") as lock:
        # Roles may be tried side by side.
        fcntl.flock(lock, fcntl.LOCK_EX)
        table = known() if TABLE.exists() else {}
        with TABLE.open("w", newline="") as lines:
            rows = csv.DictWriter(lines, ["address", "method", *ROLES], restval="", lineterminator="\n")
            rows.writeheader()
            for key in sorted(seen):
                before = {name: table.get(key, {}).get(name, "") for name in ROLES}
                rows.writerow({"address": key[0], "method": key[1], **before, role: seen[key]})


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
        for kind, target in LINK.findall(page.content.decode())
        if not (BY_DJANGO.fullmatch(path) and BY_DJANGO.fullmatch(target))
    }

    methods = {"a": "GET", "form": "POST"}
    targets = {(kind, target) for _, kind, target in offers}
    refused = {one for one in targets if outcome(fresh().generic, methods[one[0]], one[1]) == "403"}
    assert {offer for offer in offers if offer[1:] in refused} == set()
    assert len(targets) > 20


def test_ready_made_groups_say_only_permissions_that_there_are() -> None:
    assert set(declared()) == {"support", "warehouse", "accounting", "operations"}
    make_person("support")
