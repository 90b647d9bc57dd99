"""Public pages that are rendered once for many visitors: nobody sees what is another's, and everybody what is new."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from accounts.models import User
from myproject.web import kept
from orders.models import Product
from tests.factories import make_product

pytestmark = pytest.mark.django_db
TOKENS = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')


@pytest.fixture
def lamp() -> Product:
    return make_product(name="Lamp", price=Decimal("9.00"), stock=3)


def pages_of(product: Product) -> list[str]:
    return ["/", product.get_absolute_url()]


@pytest.fixture
def renders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The templates that were rendered for anybody, since nothing like it was kept."""
    rendered: list[str] = []
    render = kept.render_to_string

    def noted(template: str, *args: Any) -> str:
        rendered.append(template)
        return render(template, *args)

    monkeypatch.setattr(kept, "render_to_string", noted)
    return rendered


def test_page_is_rendered_once_for_many_visitors(lamp: Product, renders: list[str]) -> None:
    pages = [Client().get(path) for path in pages_of(lamp) for _ in range(3)]

    assert [page.status_code for page in pages] == [200] * 6
    assert renders == ["orders/catalogue.html", "orders/product.html"]


def test_forms_of_a_kept_page_hold_the_visitors_own_token(lamp: Product) -> None:
    for path in pages_of(lamp):
        Client().get(path)
        visitor = Client(enforce_csrf_checks=True)
        page = visitor.get(path)

        tokens = set(TOKENS.findall(page.content.decode()))
        sent = {"quantity": 1, "csrfmiddlewaretoken": tokens.pop()}
        assert not tokens
        assert visitor.post(f"/basket/add/{lamp.slug}/", sent).status_code == 302
        assert Client(enforce_csrf_checks=True).post(f"/basket/add/{lamp.slug}/", sent).status_code == 403


def test_tokens_differ_each_time(lamp: Product, client: Client) -> None:
    first, second = (client.get("/").content.decode() for _ in range(2))

    # What compression could tell of one is of no use for the next.
    assert TOKENS.findall(first)[0] != TOKENS.findall(second)[0]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"price": Decimal("9.50")}, "€9.50"),
        ({"stock": 1}, "Only 1 left"),
        ({"name": "Sconce"}, "Sconce"),
        ({"thumbnails": "0" * 32}, "/pictures/0000"),
    ],
)
def test_change_shows_at_once(change: dict[str, object], seen: str, lamp: Product, client: Client) -> None:
    before = [client.get(path).content.decode() for path in pages_of(lamp)]
    Product.objects.filter(pk=lamp.pk).update(**change)

    after = [client.get(path).content.decode() for path in pages_of(lamp)]

    assert [seen in page for page in before + after] == [False, False, True, True]


def test_another_product_of_the_category_shows_at_once(lamp: Product, client: Client) -> None:
    client.get(lamp.get_absolute_url())
    make_product(name="Candle", category=lamp.category)

    assert "Candle" in client.get(lamp.get_absolute_url()).content.decode()


def test_page_of_one_visitor_tells_another_nothing(
    lamp: Product, customer: User, login: Callable[[User], Client]
) -> None:
    person, visitor, told = login(customer), Client(), Client()
    for browser in (visitor, person):
        browser.post(f"/basket/add/{lamp.slug}/", {"quantity": 2}, headers={"HX-Request": "true"})
    told.post(f"/basket/add/{lamp.slug}/", {"quantity": 1})
    told.post(f"/basket/change/{lamp.slug}/", {"quantity": 0})

    for path in pages_of(lamp):
        own = [browser.get(path).content.decode() for browser in (person, visitor, told)]
        stranger = Client().get(path).content.decode()

        assert ["in it</span>" in page for page in own] == [True, True, False]
        assert "Sign out" in own[0]
        for word in ("in it</span>", "Sign out", "is in your basket", customer.name):
            assert word not in stranger
    assert "Basket" in stranger


def test_message_is_shown_to_its_visitor_alone(lamp: Product, client: Client) -> None:
    client.get("/")
    client.post(f"/basket/change/{lamp.slug}/", {"quantity": 1})

    assert "is not in this basket any more" in client.get("/").content.decode()
    assert "is not in this basket any more" not in Client().get("/").content.decode()


def test_theme_and_address_are_the_visitors_own(lamp: Product, client: Client) -> None:
    Client().get("/?q=lamp")
    client.post("/theme/", {"theme": "dark", "next": "/"})

    assert 'data-theme="dark"' in client.get("/?q=lamp").content.decode()
    assert 'data-theme="dark"' not in Client().get("/?q=lamp").content.decode()
    assert 'name="next" value="/?q=LAMP"' in Client().get("/?q=LAMP").content.decode()


def test_kept_pages_are_bounded(lamp: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 3)

    for number in range(5):
        Client().get(f"/?q={number}")

    assert len(kept._kept) <= 3


def test_setting_is_not_kept(lamp: Product, settings: Settings) -> None:
    Client().get("/")
    settings.SITE_NAME = "Wick & Wool"

    assert "Wick &amp; Wool" in Client().get("/").content.decode()


def test_what_cannot_be_compared_is_an_error() -> None:
    with pytest.raises(TypeError, match="object"):
        kept.all_of({"basket": object()})
