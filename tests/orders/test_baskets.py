"""The basket as rows: whose it is, and what two tabs, a checkout and a sign-in do to it at the same moment."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts.models import User
from orders.basket import COOKIE
from orders.models import Basket, BasketLine, Order, OrderItem, Product
from orders.tasks import clear_old_events
from tests.factories import PASSWORD, make_product, make_user
from tests.orders.test_views import add, basket_of, change, check_out, contents_shown

pytestmark = pytest.mark.django_db


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Do these at the same moment, each over a connection of its own."""
    barrier = Barrier(len(works))

    def work(do: Callable[[], Any]) -> Any:
        try:
            barrier.wait()
            return do()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(work, works))


def tab(client: Client) -> Client:
    """Open another tab of the same browser."""
    other = Client()
    other.cookies.update(client.cookies)
    return other


@pytest.fixture(params=["visitor", "person"])
def browser(request: pytest.FixtureRequest, client: Client) -> Client:
    if request.param == "person":
        client.force_login(make_user())
    # Where the browser of a visitor gets its cookie.
    client.get("/")
    return client


@pytest.mark.django_db(transaction=True)
def test_each_of_several_adds_at_once_is_in_the_basket(browser: Client) -> None:
    products = [make_product(stock=100) for _ in range(3)] * 2

    for _ in range(4):
        at_once(*(partial(add, tab(browser), product) for product in products))

    assert basket_of(browser) == {str(product.pk): 8 for product in products}


@pytest.mark.django_db(transaction=True)
def test_add_at_once_never_passes_the_stock(browser: Client) -> None:
    product = make_product(stock=3)

    answers = at_once(*(partial(add, tab(browser), product) for _ in range(6)))

    assert sorted(answer.status_code for answer in answers) == [302] * 3 + [422] * 3
    assert basket_of(browser) == {str(product.pk): 3}


@pytest.mark.django_db(transaction=True)
def test_add_beside_a_checkout_is_ordered_or_waits_and_never_both(client: Client) -> None:
    for _ in range(8):
        client.force_login(make_user())
        lamp, rug = make_product(stock=50), make_product(stock=50)
        add(client, lamp)
        seen = contents_shown(client)

        at_once(partial(check_out, tab(client), contents=seen), partial(add, tab(client), rug))

        items = OrderItem.objects.filter(product__in=[lamp, rug])
        left = {int(pk) for pk in basket_of(client)}
        # Either the checkout came first, or it found what its page had not shown and ordered nothing.
        assert ({item.product_id for item in items}, left) in [({lamp.pk}, {rug.pk}), (set(), {lamp.pk, rug.pk})]


@pytest.mark.django_db(transaction=True)
def test_form_that_is_sent_twice_at_once_leads_to_the_one_order_twice(client: Client) -> None:
    client.force_login(make_user())
    for _ in range(5):
        add(client, make_product())
        seen, token = contents_shown(client), uuid.uuid4()

        answers = at_once(*(partial(check_out, tab(client), token=token, contents=seen) for _ in range(2)))

        order = Order.objects.get(token=token)
        assert [answer["Location"] for answer in answers] == [order.get_absolute_url()] * 2
        assert basket_of(client) == {}


def test_basket_survives_the_sign_out_and_waits_on_other_devices(client: Client, customer: User) -> None:
    product = make_product()
    client.force_login(customer)
    add(client, product, 2)

    client.post("/accounts/logout/")

    assert basket_of(client) == {}
    phone = Client()
    phone.force_login(customer)
    assert basket_of(phone) == {str(product.pk): 2}


def test_sign_in_takes_along_what_the_visitor_has_gathered(client: Client) -> None:
    person, lamp, rug = make_user(), make_product(), make_product()
    elsewhere = Client()
    elsewhere.force_login(person)
    add(elsewhere, lamp, 2)
    add(client, lamp)
    add(client, rug)

    client.post("/accounts/login/", {"login": person.email, "password": PASSWORD})

    assert basket_of(client) == basket_of(elsewhere) == {str(lamp.pk): 3, str(rug.pk): 1}
    client.post("/accounts/logout/")
    assert basket_of(client) == {}


def test_basket_of_somebody_else_is_out_of_reach(client: Client) -> None:
    add(client, make_product())
    other = Client()

    assert basket_of(other) == {}
    for guess in ("", "x", str(uuid.uuid4())):
        other.cookies[COOKIE] = guess
        assert basket_of(other) == {}


def test_visitor_is_named_where_things_can_be_added_and_nowhere_that_is_cached(client: Client) -> None:
    product = make_product()

    named = {path: COOKIE in Client().get(path).cookies for path in ("/", product.get_absolute_url(), "/basket/")}
    picture = Client().get(f"/products/{product.slug}.svg")

    assert list(named.values()) == [True, True, False]
    assert COOKIE not in picture.cookies


def test_basket_of_the_release_before_is_taken_over(client: Client) -> None:
    product = make_product()
    session = client.session
    session["basket"] = {str(product.pk): 2, "987654321": 1}
    session.save()
    client.cookies["sessionid"] = str(session.session_key)

    assert [basket_of(client), basket_of(client)] == [{str(product.pk): 2}] * 2
    change(client, product, 0)
    assert basket_of(client) == {}


def test_baskets_of_visitors_are_cleared_away_when_their_cookie_is_over(client: Client) -> None:
    add(client, make_product())
    client.force_login(make_user())
    old = Basket.objects.create(visitor=uuid.uuid4(), used_at=timezone.now() - timedelta(days=15))
    old.put(make_product(), 1)
    Basket.objects.filter(person__isnull=False).update(used_at=timezone.now() - timedelta(days=300))

    clear_old_events()

    assert not Basket.objects.filter(pk=old.pk).exists()
    assert (Basket.objects.count(), BasketLine.objects.count()) == (1, 1)


def test_price_that_the_currency_cannot_express_is_a_problem_of_its_line(client: Client, settings: Any) -> None:
    client.force_login(make_user())
    add(client, make_product(name="Lamp", price=Decimal("12.50")))
    settings.CURRENCY = "JPY"

    answer = check_out(client)

    assert answer["Location"] == "/basket/"
    assert "Lamp has no price in JPY yet." in client.get("/basket/").content.decode()
    assert Product.objects.get().stock == 10


def test_basket_of_a_visitor_is_kept_by_no_cache(client: Client) -> None:
    assert set(client.get("/basket/").headers["Cache-Control"].split(", ")) == {"private", "no-store"}
