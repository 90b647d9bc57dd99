"""Odd values in each parameter and each field of each page: refused, or an empty list, and no fault of the shop.

Each place gets a few of the values, by turns, so that each value comes to each page and to each name.
`EVERY_VALUE=1 pytest -m attack tests/attack/test_odd_values.py` gives all of them to each place, in half an hour.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl, quote_plus, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup, Tag
from django.core.cache import cache
from django.http.response import HttpResponseBase

from tests.attack.addresses import addresses, broken, client_of, make_person, outcome

pytestmark = [
    pytest.mark.attack,
    pytest.mark.django_db,
    pytest.mark.timeout(1800),
    # Django's admin compares a date that is written without a zone; everywhere else that is an error in the tests.
    pytest.mark.filterwarnings("ignore:.*received a naive datetime:RuntimeWarning"),
]

ODD = {
    "a NUL": "a\0b",
    "half a surrogate": "\ud800",
    "a broken expression": "(?P<[*",
    "signs of LIKE and of formats": "%s%%_\\{0}'\";--",
    "a day that is none": "2026-02-30",
    "a year before the first": "0000-00-00",
    "the last day": "9999-12-31",
    "a year that no date has": "99999-01-01T25:61:61",
    "a number that no column has": "9" * 30,
    "a long number": "1" * 5000,
    "below nothing": "-1",
    "no number": "NaN",
    "more than all": "1e999",
    "no address": "https://[",
    "another script's digits": "١٢٣",
    "a list": "1,2,x,,",
    "an object": '{"a": [null]}',
    "a long word": "w" * 70_000,
    "the direction of text": "\u202e\u2067x",
    "nothing": "",
}
TURNS = 1 if os.environ.get("EVERY_VALUE") else 10
# What pages read although no link and no form of theirs shows it.
UNTOLD = ("next", "_popup", "_to_field", "_changelist_filters")
OF_LISTS = ("q", "p", "o", "e", "all", "page", "_facets", "kind")
# Data that is behind a session of its own would be away for the questions that follow.
LEAVES = ("/accounts/logout/", "/people/delete/", "/accounts/second-factor/")


class Form(NamedTuple):
    path: str
    fields: tuple[tuple[str, str], ...]


def body(fields: tuple[tuple[str, str], ...]) -> bytes:
    """Encode a form as a browser does, and what no browser sends as well."""
    return "&".join(f"{quote_plus(name)}={encoded(value)}" for name, value in fields).encode()


def encoded(value: str) -> str:
    return quote_plus(value.encode(errors="surrogatepass"))


def shown_value(field: Tag) -> str:
    if field.name == "textarea":
        return field.get_text()
    if field.name == "select":
        chosen = field.select_one("option[selected]") or field.select_one("option")
        return str(chosen.get("value", "")) if chosen else ""
    return str(field.get("value", "on" if field.get("type") in ("checkbox", "radio") else "1"))


def read(path: str, page: HttpResponseBase) -> tuple[set[str], list[Form]]:
    """Return the parameters that the page's links and forms ask it with, and the forms that it sends."""
    soup = BeautifulSoup(getattr(page, "content", b""), "html.parser")
    asked = {name for link in soup.select("a[href^='?']") for name, _ in parse_qsl(urlsplit(str(link["href"])).query)}
    sent = []
    for form in soup.select("form"):
        named = (field for field in form.select("[name]") if field.get("type") != "file")
        fields = tuple((str(f["name"]), shown_value(f)) for f in named if f["name"] != "csrfmiddlewaretoken")
        if str(form.get("method", "get")).lower() == "post":
            sent.append(Form(urljoin(path, str(form.get("action") or path)), fields))
        else:
            asked |= {name for name, _ in fields}
    return asked, sent


def parameters(path: str, page: HttpResponseBase) -> set[str]:
    told, _ = read(path, page)
    return told | set(UNTOLD) | set(OF_LISTS if told else ())


def odd(page: int, place: int) -> Iterator[tuple[str, str]]:
    """Yield the kinds and values whose turn it is at this place of this page."""
    for number, (kind, value) in enumerate(ODD.items()):
        if (number + place + page) % TURNS == 0:
            yield kind, value


def questions(page: int, path: str, names: set[str]) -> Iterator[tuple[str, str, str]]:
    for place, name in enumerate(sorted(names)):
        for kind, value in odd(page, place):
            yield f"{path}?{quote_plus(name)}={encoded(value)}", name, kind


@pytest.mark.parametrize(("role", "least"), [("visitor", 100), ("customer", 150), ("administrator", 1000)])
def test_odd_parameter_is_no_fault(role: str, least: int) -> None:
    cache.clear()
    person = make_person(role)
    fresh, found = client_of(person), addresses(person)
    pages = {path: fresh().get(path) for path in found.values() if not path.startswith(LEAVES)}
    readable = {path: page for path, page in pages.items() if page.status_code == 200}

    seen = {
        (path, name, kind): outcome(fresh().get, address)
        for number, (path, page) in enumerate(readable.items())
        for address, name, kind in questions(number, path, parameters(path, page))
    }

    assert broken(seen) == {}
    assert len(seen) > least


@pytest.mark.parametrize(("role", "least"), [("visitor", 20), ("customer", 50), ("administrator", 200)])
def test_odd_field_is_no_fault(role: str, least: int) -> None:
    cache.clear()
    person = make_person(role)
    fresh, found = client_of(person), addresses(person)
    pages = {path: fresh().get(path) for path in found.values()}
    forms = {form for path, page in pages.items() if page.status_code == 200 for form in read(path, page)[1]}

    seen = {}
    for number, form in enumerate(sorted(forms)):
        for place, (name, _) in enumerate(form.fields):
            for kind, value in odd(number, place):
                fields = (*form.fields[:place], (name, value), *form.fields[place + 1 :])
                send = {"data": body(fields), "content_type": "application/x-www-form-urlencoded"}
                cache.clear()
                seen[form.path, name, kind] = outcome(lambda send=send, form=form: fresh().post(form.path, **send))

    assert broken(seen) == {}
    assert len(seen) > least
