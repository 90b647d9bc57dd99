"""The shelves: what is found, in which order, and how a thing gets into the basket without leaving them."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from orders.models import BasketLine, Product
from tests.factories import make_product

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


def names(answer: Any) -> list[str]:
    return [product.name for product in answer.context["page"]]


@pytest.fixture
def shelves() -> None:
    now = timezone.now()
    for name, price, stock, age in (("Bowl", "9.00", 3, 3), ("Cup", "4.00", 0, 1), ("Axe", "20.00", 1, 2)):
        made = make_product(name=name, price=Decimal(price), stock=stock)
        Product.objects.filter(pk=made.pk).update(created_at=now - timedelta(days=age))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["Axe", "Bowl", "Cup"]),
        ("sort=price", ["Cup", "Bowl", "Axe"]),
        ("sort=-price", ["Axe", "Bowl", "Cup"]),
        ("sort=-created_at", ["Cup", "Axe", "Bowl"]),
        ("in_stock=on", ["Axe", "Bowl"]),
        ("in_stock=on&sort=price", ["Bowl", "Axe"]),
        ("sort=stock", ["Axe", "Bowl", "Cup"]),
    ],
)
def test_catalogue_is_sorted_and_filtered(query: str, found: list[str], shelves: None, client: Client) -> None:
    assert names(client.get(f"/?{query}")) == found


def test_catalogue_says_how_many_it_found(shelves: None, client: Client) -> None:
    page = client.get("/?q=bowl").content.decode()

    assert "1 product for “<bdi>bowl</bdi>”" in page


def test_catalogue_answers_a_script_with_the_results_alone(shelves: None, client: Client) -> None:
    part = client.get("/?q=cup", headers=HTMX | {"HX-Target": "results"})

    assert part.content.decode().startswith('<section id="results"')
    assert names(part) == ["Cup"]
    assert "HX-Target" in part.headers["Vary"]


def test_catalogue_links_the_numbers_of_its_pages(client: Client) -> None:
    for _ in range(40):
        make_product()

    page = client.get("/?page=2").content.decode()

    assert 'href="?page=4"' in page
    assert 'aria-current="page"' in page


@pytest.mark.parametrize("count", [1, 3])
def test_catalogue_takes_the_same_queries_however_many_products(
    count: int, client: Client, django_assert_num_queries: Any
) -> None:
    for _ in range(count):
        make_product()
    client.get("/")

    # The number and the page of products, the categories, the basket's lines and its number.
    with django_assert_num_queries(4):
        client.get("/")


def test_product_page_shows_more_of_its_category_what_can_be_bought_first(client: Client) -> None:
    here = make_product(name="Here", category="Kitchen")
    make_product(name="A gone one", category="Kitchen", stock=0)
    make_product(name="Bowl", category="Kitchen")
    make_product(name="Spade", category="Garden")

    more = client.get(here.get_absolute_url()).context["more"]

    assert [product.name for product in more] == ["Bowl", "A gone one"]


# --- Into the basket without leaving ---


def test_add_by_a_script_answers_with_the_number_and_stays(client: Client) -> None:
    product = make_product(name="Bowl", stock=5)
    target = {"HX-Target": f"adder-{product.pk}"}

    answer = client.post(f"/basket/add/{product.slug}/", {"quantity": 2}, headers=HTMX | target)

    text = answer.content.decode()
    assert answer.status_code == 200
    assert "Bowl: 2 in your basket." in text
    assert '<div hx-swap-oob="innerHTML:#basket-link">' in text
    assert 'name="quantity" value="3"' in text
    assert BasketLine.objects.get().quantity == 2


def test_step_by_a_script_changes_the_number_down_to_the_button(client: Client) -> None:
    product = make_product(stock=5)
    client.post(f"/basket/add/{product.slug}/", {"quantity": 1})

    answer = client.post(f"/basket/change/{product.slug}/", {"quantity": 0}, headers=HTMX | {"HX-Target": "adder-1"})

    assert f'id="add-{product.pk}"' in answer.content.decode()
    assert not BasketLine.objects.exists()


@pytest.mark.parametrize("target", ["adder-1", "add-form", "basket-live"])
def test_refusal_by_a_script_says_why_in_its_place(target: str, client: Client) -> None:
    product = make_product(name="Bowl", stock=1)
    client.post(f"/basket/add/{product.slug}/", {"quantity": 1})

    answer = client.post(f"/basket/change/{product.slug}/", {"quantity": 9}, headers=HTMX | {"HX-Target": target})

    assert "Only 1 of Bowl left" in answer.content.decode()
    assert BasketLine.objects.get().quantity == 1


def test_line_that_another_tab_has_removed_does_not_come_back(client: Client) -> None:
    product = make_product(name="Bowl")
    client.post(f"/basket/add/{product.slug}/", {"quantity": 1})
    client.post(f"/basket/change/{product.slug}/", {"quantity": 0})

    answer = client.post(f"/basket/change/{product.slug}/", {"quantity": 4}, follow=True)

    assert "Bowl is not in this basket any more" in answer.content.decode()
    assert not BasketLine.objects.exists()
