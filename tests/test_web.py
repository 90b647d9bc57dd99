"""What holds for all pages: templates, the demo data."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.template.loader import get_template
from django.test import Client

from accounts.models import User
from orders.models import Product
from tests.factories import make_user

ROOT = settings.BASE_DIR / "templates"
TEMPLATES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.*"))
# Mail programs know no style sheets.
PAGES = [path for path in TEMPLATES if path.suffix == ".html" and "email" not in str(path.parent) + path.stem[:6]]
INLINE = {
    "script": re.compile(r"<script(?![^>]*\bsrc=)", re.IGNORECASE),
    "style attribute": re.compile(r"""\sstyle\s*=\s*["']""", re.IGNORECASE),
    "style element": re.compile(r"<style", re.IGNORECASE),
    "event handler": re.compile(r"""\son\w+\s*=\s*["']""", re.IGNORECASE),
    "address of another site": re.compile(r"""(?:src|href)=["'](?:https?:)?//""", re.IGNORECASE),
}


@pytest.mark.parametrize("what", INLINE)
def test_pages_have_nothing_that_the_content_security_policy_forbids(what: str) -> None:
    guilty = [str(path) for path in PAGES if INLINE[what].search((ROOT / path).read_text())]

    assert len(PAGES) > 40
    assert guilty == []


@pytest.mark.parametrize("path", TEMPLATES, ids=str)
def test_template_compiles(path: Path) -> None:
    assert get_template(str(path)).origin.name == str(ROOT / path)  # type: ignore[attr-defined]


def test_each_form_that_posts_carries_a_csrf_token() -> None:
    bare = [
        str(path)
        for path in PAGES
        for form in re.findall(r'<form[^>]*method="post".*?</form>', (ROOT / path).read_text(), re.DOTALL)
        if "{% csrf_token %}" not in form
    ]

    assert bare == []


# --- Demo data ---


@pytest.mark.django_db
def test_seed_demo_twice_is_once() -> None:
    for _ in range(2):
        call_command("seed_demo")

    assert sorted(User.objects.values_list("email", "is_staff")) == [
        ("accounting@example.com", True),
        ("customer@example.com", False),
        ("operations@example.com", True),
        ("staff@example.com", True),
        ("support@example.com", True),
        ("warehouse@example.com", True),
    ]
    assert Product.objects.count() == len((settings.BASE_DIR / "orders/catalogue.csv").read_text().splitlines()) - 1


@pytest.mark.django_db
def test_seed_demo_leaves_what_is_there() -> None:
    call_command("seed_demo")
    Product.objects.update(stock=0, name="Renamed")

    call_command("seed_demo")

    assert set(Product.objects.values_list("stock", "name")) == {(0, "Renamed")}


@pytest.mark.django_db
def test_seed_demo_makes_no_people_when_somebody_is_there() -> None:
    make_user(email="owner@example.com")

    call_command("seed_demo")

    assert list(User.objects.values_list("email", flat=True)) == ["owner@example.com"]


@pytest.mark.parametrize("path", ["/nothing/", "/products/no-such-thing/"])
def test_address_without_a_page_is_answered_in_development_as_in_production(
    path: str, client: Client, settings: Any, db: None
) -> None:
    settings.DEBUG = True

    answer = client.get(path)

    assert answer.status_code == 404
    assert "There is nothing at this address" in answer.content.decode()


def test_page_of_a_broken_link_stays_itself_in_development(client: Client, settings: Any, db: None) -> None:
    settings.DEBUG = True

    answer = client.get("/people/unsubscribe/broken/")

    assert (answer.status_code, "This link is not whole" in answer.content.decode()) == (404, True)
