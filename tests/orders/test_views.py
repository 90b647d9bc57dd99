import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from accounts.models import User
from orders.models import Card, Order, Product, Status
from tests.factories import make_product, make_user, place_order, put, running

pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]


@pytest.fixture
def shopper(login: Login, customer: User) -> Client:
    return login(customer)


def add(client: Client, product: Product, quantity: object = 1) -> Any:
    return client.post(f"/basket/add/{product.slug}/", {"quantity": quantity})


def change(client: Client, product: Product, quantity: object) -> Any:
    return client.post(f"/basket/change/{product.slug}/", {"quantity": quantity})


def check_out(client: Client, card: str = Card.VISA, token: object = None, contents: str = "") -> Any:
    """Send the checkout form, by default with what its page would show now."""
    seen = contents or contents_shown(client)
    return client.post("/checkout/", {"card": card, "token": token or uuid.uuid4(), "contents": seen})


def contents_shown(client: Client) -> str:
    """Return what the checkout page says that its button is about."""
    fingerprint: str = client.get("/basket/").context["basket"].fingerprint
    return fingerprint


def basket_of(client: Client) -> dict[str, int]:
    return {str(line.product.pk): line.quantity for line in client.get("/basket/").context["basket"]}


def messages_of(answer: Any) -> list[str]:
    return [str(message) for message in get_messages(answer.wsgi_request)]


def names_on(answer: Any) -> list[str]:
    return [product.name for product in answer.context["page"]]


# --- Catalogue ---


def test_catalogue_shows_what_is_sold_to_everybody(client: Client) -> None:
    make_product(name="B")
    make_product(name="A")
    make_product(name="Gone", is_active=False)

    answer = client.get("/")

    assert (answer.status_code, names_on(answer)) == (200, ["A", "B"])


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("q=lantern", ["Storm lantern"]),
        ("q=STORM+lan", ["Storm lantern"]),
        ("q=cloth", ["Towel"]),
        ("q=tow-1", ["Towel"]),
        ("q=50%25", []),
        ("category=Kitchen", ["Towel"]),
        ("category=Kitchen&q=lantern", []),
        ("q=&category=", ["Storm lantern", "Towel"]),
        ("category=Nothing", ["Storm lantern", "Towel"]),
        ("q=%00", ["Storm lantern", "Towel"]),
        ("page=x", ["Storm lantern", "Towel"]),
        ("page=-1", ["Storm lantern", "Towel"]),
        ("page=999999999999", ["Storm lantern", "Towel"]),
    ],
)
def test_catalogue_finds_what_was_asked_for(query: str, names: list[str], client: Client) -> None:
    make_product(name="Storm lantern", category="Lighting", sku="LIT-1")
    make_product(name="Towel", category="Kitchen", sku="TOW-1", description="A cloth of linen")

    answer = client.get(f"/?{query}")

    assert (answer.status_code, names_on(answer)) == (200, names)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("Café table", "cafe\u0301"),
        ("Café table", "CAF\u00c9"),
        ("Лампа", "лАМПА"),
        ("Λάμπα", "ΛΆΜΠΑ"),
        ("Lamp", "la\u00admp\u200b"),
        ("提灯", "提灯"),
    ],
)
def test_catalogue_finds_words_however_they_are_written(name: str, asked: str, client: Client) -> None:
    make_product(name=name)

    answer = client.get("/", {"q": asked})

    assert names_on(answer) == [name]


def test_catalogue_finds_nothing_by_what_no_product_can_hold(client: Client) -> None:
    make_product(name="Lamp")

    answer = client.get("/", {"q": "\x07lamp"})

    assert (answer.status_code, names_on(answer)) == (200, [])


def test_catalogue_shows_twelve_on_a_page_and_keeps_the_search(client: Client) -> None:
    for number in range(14):
        make_product(name=f"Lamp {number:02}")

    first, second = client.get("/?q=lamp"), client.get("/?q=lamp&page=2")

    assert len(names_on(first)) == 12
    assert names_on(second) == ["Lamp 12", "Lamp 13"]
    assert '<a class="button button-quiet" href="?q=lamp&amp;page=2" rel="next">' in first.content.decode()


def test_catalogue_looks_for_ten_words_at_most(client: Client) -> None:
    make_product(name="one two three four five six seven eight nine ten")

    answer = client.get("/", {"q": "one two three four five six seven eight nine ten eleven"})

    assert len(names_on(answer)) == 1


def test_catalogue_says_so_when_nothing_is_found(client: Client) -> None:
    answer = client.get("/?q=<b>")

    assert "No product matches “<bdi>&lt;b&gt;</bdi>”" in answer.content.decode()


def test_product_page_is_gone_when_it_is_withdrawn(client: Client) -> None:
    product = make_product(is_active=False)

    answer = client.get(product.get_absolute_url())

    assert answer.status_code == 404


def test_product_page_offers_no_button_when_it_is_sold_out(client: Client) -> None:
    answer = client.get(make_product(stock=0).get_absolute_url())

    assert "Sold out" in answer.content.decode()
    assert "Add to basket" not in answer.content.decode()


def test_picture_is_an_svg_that_may_be_kept(client: Client) -> None:
    product = make_product(name="Lamp <1>")

    answer = client.get(f"/products/{product.slug}.svg")

    assert answer["Content-Type"] == "image/svg+xml"
    assert answer["Cache-Control"] == "max-age=86400, public"
    assert b"<1>" not in answer.content


# --- Basket ---


def test_basket_add_puts_the_product_in_and_says_so(client: Client) -> None:
    product = make_product(name="Lamp")

    answer = add(client, product, 2)

    assert (answer.status_code, answer["Location"]) == (302, "/basket/")
    assert basket_of(client) == {str(product.pk): 2}
    assert messages_of(answer) == ["Lamp is in your basket."]


def test_basket_add_adds_to_what_is_there(client: Client) -> None:
    product = make_product(stock=5)

    add(client, product, 2)
    add(client, product, 3)

    assert basket_of(client) == {str(product.pk): 5}


@pytest.mark.parametrize(
    ("quantity", "message"),
    [
        ("0", "Please order at least 1."),
        ("-1", "Please order at least 1."),
        ("6", "Only 5 of Lamp left."),
        ("9" * 40, "Only 5 of Lamp left."),
        ("two", "Enter a whole number."),
        ("1.5", "Enter a whole number."),
        ("", "This field is required."),
    ],
)
def test_basket_add_explains_when_the_quantity_is_impossible(quantity: str, message: str, client: Client) -> None:
    product = make_product(name="Lamp", stock=5)

    answer = add(client, product, quantity)

    assert (answer.status_code, basket_of(client)) == (422, {})
    assert answer.context["form"].errors["quantity"] == [message]
    assert message in answer.content.decode()


def test_basket_add_counts_what_is_in_the_basket_already(client: Client) -> None:
    product = make_product(name="Lamp", stock=5)
    add(client, product, 4)

    answer = add(client, product, 2)

    assert basket_of(client) == {str(product.pk): 4}
    assert answer.context["form"].errors["quantity"] == ["Only 5 of Lamp left, and 4 are in your basket."]


def test_basket_add_explains_when_it_is_sold_out(client: Client) -> None:
    answer = add(client, make_product(name="Lamp", stock=0))

    assert answer.context["form"].errors["quantity"] == ["Lamp is sold out."]


def test_basket_add_is_not_found_when_the_product_is_withdrawn(client: Client) -> None:
    answer = add(client, make_product(is_active=False))

    assert (answer.status_code, basket_of(client)) == (404, {})


@pytest.mark.parametrize(("quantity", "kept"), [("3", 3), ("0", None), ("-1", 2), ("6", 2), ("x", 2), ("", 2)])
def test_basket_change_keeps_the_basket_when_the_quantity_is_impossible(
    quantity: str, kept: int | None, client: Client
) -> None:
    product = make_product(stock=5)
    add(client, product, 2)

    answer = change(client, product, quantity)

    assert answer.status_code == 302
    assert basket_of(client).get(str(product.pk)) == kept


def test_basket_change_removes_what_is_no_longer_sold(client: Client) -> None:
    product = make_product()
    add(client, product)
    Product.objects.update(is_active=False, stock=0)

    change(client, product, 0)

    assert basket_of(client) == {}


def test_basket_shows_the_totals(client: Client) -> None:
    add(client, make_product(price=Decimal("12.50")), 2)
    add(client, make_product(price=Decimal("1000.00")))

    answer = client.get("/basket/")

    assert answer.context["basket"].total == Decimal("1025.00")
    assert "€1,025.00" in answer.content.decode()


# --- Checkout ---


def test_checkout_places_the_order_and_empties_the_basket(shopper: Client, customer: User) -> None:
    product = make_product(price=Decimal("12.50"))
    add(shopper, product, 2)

    answer = check_out(shopper, Card.SLOW)

    order = Order.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, order.get_absolute_url())
    assert (order.customer, order.status, order.total) == (customer, Status.PENDING, Decimal("25.00"))
    assert order.payments.get().card == Card.SLOW
    assert basket_of(shopper) == {}


def test_checkout_places_one_order_when_the_form_is_sent_twice(shopper: Client) -> None:
    token = uuid.uuid4()
    add(shopper, make_product())

    first, second = check_out(shopper, token=token), check_out(shopper, token=token)

    assert first["Location"] == second["Location"] == Order.objects.get().get_absolute_url()
    assert Order.objects.get().items.count() == 1


def test_checkout_gives_each_form_its_own_token(shopper: Client) -> None:
    add(shopper, make_product())

    forms = [shopper.get("/checkout/").content.decode() for _ in range(2)]

    tokens = {re.findall(r'name="token" value="([\w-]{36})"', form)[0] for form in forms}
    assert len(tokens) == 2


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"card": "pm_card_gold", "token": str(uuid.uuid4())}, "card"),
        ({"token": str(uuid.uuid4())}, "card"),
        ({"card": Card.VISA, "token": "x"}, "token"),
        ({"card": Card.VISA}, "token"),
        ({"card": Card.VISA, "token": str(uuid.uuid4())}, "__all__"),
    ],
)
def test_checkout_shows_the_form_again_when_it_is_incomplete(data: dict[str, str], field: str, shopper: Client) -> None:
    product = make_product()
    add(shopper, product)

    seen = {} if field == "__all__" else {"contents": contents_shown(shopper)}

    answer = shopper.post("/checkout/", data | seen)

    assert (answer.status_code, list(answer.context["form"].errors)) == (200, [field])
    assert (Order.objects.count(), basket_of(shopper)) == (0, {str(product.pk): 1})


@pytest.mark.parametrize("how", ["price", "quantity", "other goods of the same total", "name", "currency"])
def test_checkout_orders_nothing_that_its_page_did_not_show(how: str, shopper: Client, settings: Settings) -> None:
    lamp, rug = make_product(name="Lamp", price=Decimal("40.00")), make_product(name="Rug", price=Decimal("40.00"))
    add(shopper, lamp)
    seen = contents_shown(shopper)
    match how:
        case "price":
            Product.objects.update(price=Decimal("900.00"))
        case "quantity":
            Product.objects.update(price=Decimal("20.00"))
            change(shopper, lamp, 2)
        case "other goods of the same total":
            change(shopper, lamp, 0)
            add(shopper, rug)
        case "name":
            Product.objects.update(name="Lantern")
        case "currency":
            settings.CURRENCY = "USD"

    answer = check_out(shopper, contents=seen)

    assert "Please look at it again" in answer.content.decode()
    assert Order.objects.count() == 0
    shown = re.findall(r'name="contents" value="(\w+)"', answer.content.decode())
    assert check_out(shopper, contents=shown[0]).status_code == 302
    assert Order.objects.get().total == answer.context["basket"].total


@pytest.mark.parametrize(
    ("currency", "price", "quantity", "limit"),
    [
        ("EUR", "9999999.99", 101, "€999,999.99"),
        ("EUR", "1000000.00", 1, "€999,999.99"),
        ("JPY", "9999999", 11, "JP¥99,999,999"),
        ("IDR", "999999999.99", 2, "IDR999,999,999.99"),
        ("INR", "9999999.99", 2, "₹9,999,999.99"),
    ],
)
def test_basket_names_the_limit_that_no_order_may_pass(
    currency: str, price: str, quantity: int, limit: str, shopper: Client, settings: Settings
) -> None:
    settings.CURRENCY = currency
    add(shopper, make_product(price=Decimal(price), stock=1000), quantity)

    answers = [shopper.get("/checkout/"), shopper.post("/checkout/", {"card": Card.VISA, "token": uuid.uuid4()})]

    assert {answer["Location"] for answer in answers} == {"/basket/"}
    assert f"One order comes to {limit} at most." in shopper.get("/basket/").content.decode()
    assert Order.objects.count() == 0


@pytest.mark.parametrize(
    ("currency", "price", "limit"), [("EUR", "0.49", "€0.50"), ("JPY", "49", "JP¥50"), ("GBP", "0.29", "£0.30")]
)
def test_basket_names_the_least_that_an_order_comes_to(
    currency: str, price: str, limit: str, shopper: Client, settings: Settings
) -> None:
    settings.CURRENCY = currency
    product = make_product(price=Decimal(price))
    add(shopper, product)

    refused = shopper.get("/checkout/")
    told = shopper.get("/basket/").content.decode()
    add(shopper, product)

    assert (refused["Location"], f"One order comes to {limit} at least." in told) == ("/basket/", True)
    assert shopper.get("/checkout/").status_code == 200


@pytest.mark.parametrize(
    ("meanwhile", "message"),
    [
        ({"is_active": False}, "Lamp is no longer sold. Please remove it."),
        ({"stock": 0}, "Lamp is sold out. Please remove it."),
        ({"stock": 1}, "Only 1 of Lamp left. Please take fewer."),
    ],
)
@pytest.mark.parametrize("method", ["get", "post"])
def test_checkout_keeps_the_basket_and_explains_when_it_cannot_be_ordered(
    meanwhile: dict[str, Any], message: str, method: str, shopper: Client
) -> None:
    product = make_product(name="Lamp")
    add(shopper, product, 2)
    shopper.get("/basket/")
    Product.objects.update(**meanwhile)

    answer = shopper.get("/checkout/") if method == "get" else check_out(shopper)

    assert (answer.status_code, answer["Location"]) == (302, "/basket/")
    assert messages_of(answer) == [message]
    assert (Order.objects.count(), basket_of(shopper)) == (0, {str(product.pk): 2})
    assert message in shopper.get("/basket/").content.decode()


def test_checkout_leads_back_when_the_basket_is_empty(shopper: Client) -> None:
    answer = check_out(shopper)

    assert (answer["Location"], messages_of(answer)) == ("/basket/", ["Your basket is empty."])
    assert Order.objects.count() == 0


# --- Orders ---


def test_orders_are_one_s_own_newest_first(shopper: Client, customer: User) -> None:
    first, second = place_order(customer), place_order(customer)
    place_order()

    answer = shopper.get("/orders/")

    assert list(answer.context["page"]) == [second, first]


@pytest.mark.parametrize("status", Status)
def test_order_page_shows_each_status(status: Status, shopper: Client, customer: User) -> None:
    order = put(place_order(customer), status)

    page, part = shopper.get(order.get_absolute_url()), shopper.get(f"{order.get_absolute_url()}status/")

    for answer in (page, part):
        assert f'<span class="pill pill-{status}">{status.label}</span>' in answer.content.decode()
        assert ('data-every="1"' in answer.content.decode()) is order.is_open


@pytest.mark.parametrize("status", Status)
def test_order_page_offers_staff_nothing_that_only_its_customer_may_do(
    status: Status, staff: User, login: Login
) -> None:
    order = put(place_order(), status)

    page = login(staff).get(order.get_absolute_url()).content.decode()

    assert ("/pay/" in page, "/cancel/" in page) == (False, False)


@pytest.mark.parametrize(("method", "path"), [("get", ""), ("get", "status/"), ("post", "pay/"), ("post", "cancel/")])
def test_order_is_not_found_when_it_is_somebody_else_s(method: str, path: str, shopper: Client) -> None:
    order = put(place_order(), Status.PAYMENT_FAILED)

    answer = shopper.generic(method.upper(), f"{order.get_absolute_url()}{path}")

    order.refresh_from_db()
    assert (answer.status_code, order.status) == (404, Status.PAYMENT_FAILED)


def test_order_is_seen_by_staff_with_its_task(login: Login, staff: User, shopper: Client, customer: User) -> None:
    order = place_order(customer)
    with running("task-7"):
        Order.objects.filter(pk=order.pk).move(Status.PROCESSING)

    seen, own = login(staff).get(order.get_absolute_url()), shopper.get(order.get_absolute_url())

    assert "task task-7" in seen.content.decode()
    assert "task-7" not in own.content.decode()


@pytest.mark.parametrize("reference", ["0000-0000", "x", "%00", "é", "1' OR '1'='1"])
def test_order_is_not_found_when_there_is_none(reference: str, shopper: Client) -> None:
    assert shopper.get(f"/orders/{reference}/").status_code == 404


def test_cancel_closes_a_pending_order(shopper: Client, customer: User) -> None:
    order = place_order(customer)

    answer = shopper.post(f"{order.get_absolute_url()}cancel/")

    order.refresh_from_db()
    assert (answer["Location"], order.status) == (order.get_absolute_url(), Status.CANCELLED)


def test_cancel_that_is_sent_twice_says_nothing_else_than_once(shopper: Client, customer: User) -> None:
    order = place_order(customer)

    answers = [shopper.post(f"/orders/{order.reference}/cancel/") for _ in range(2)]

    assert [messages_of(answer) for answer in answers] == [[], []]
    assert Order.objects.get().status == Status.CANCELLED


def test_cancel_explains_when_it_is_too_late(shopper: Client, customer: User) -> None:
    order = put(place_order(customer), Status.PROCESSING)

    answer = shopper.post(f"{order.get_absolute_url()}cancel/")

    order.refresh_from_db()
    assert messages_of(answer) == ["It is too late to cancel this order."]
    assert order.status == Status.PROCESSING


def test_pay_starts_another_attempt(shopper: Client, customer: User) -> None:
    order = put(place_order(customer), Status.PAYMENT_FAILED)
    order.payments.update(status="declined")

    shopper.post(f"{order.get_absolute_url()}pay/", {"card": Card.SLOW})

    order.refresh_from_db()
    assert order.status == Status.PENDING
    assert list(order.payments.order_by("attempt").values_list("attempt", "card")) == [(1, Card.VISA), (2, Card.SLOW)]


@pytest.mark.parametrize(
    ("status", "card", "message"),
    [
        (Status.PAYMENT_FAILED, "pm_card_gold", "Please choose one of the cards."),
        (Status.PAYMENT_FAILED, "", "Please choose one of the cards."),
        (Status.COMPLETED, Card.VISA, "There is nothing to pay for this order now."),
        (Status.PENDING, Card.VISA, "There is nothing to pay for this order now."),
    ],
)
def test_pay_explains_when_it_cannot_be(
    status: Status, card: str, message: str, shopper: Client, customer: User
) -> None:
    order = put(place_order(customer), status)

    answer = shopper.post(f"{order.get_absolute_url()}pay/", {"card": card})

    order.refresh_from_db()
    assert messages_of(answer) == [message]
    assert (order.status, order.payments.count()) == (status, 1)


def test_requeue_is_for_staff(login: Login, staff: User, shopper: Client, customer: User) -> None:
    order = place_order(customer)

    answers = [who.post(f"{order.get_absolute_url()}nudge/").status_code for who in (shopper, login(staff))]

    assert answers == [403, 302]
    assert list(order.events.filter(kind="nudged").values_list("detail", flat=True)) == [f"by Sam (#{staff.pk})"]


# --- Doors ---

OPEN_TO_ALL = ["/", "/basket/", "/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"]
CLOSED = ["/checkout/", "/orders/", "/orders/0000-0000/", "/dashboard/", "/reports/", "/flower/"]


@pytest.mark.parametrize("path", OPEN_TO_ALL)
def test_page_is_open_to_everybody(path: str, client: Client) -> None:
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
def test_page_asks_to_log_in(path: str, client: Client) -> None:
    answer = client.get(path)

    assert (answer.status_code, answer["Location"]) == (302, f"/accounts/login/?next={path}")


@pytest.mark.parametrize("path", ["/reports/", "/flower/"])
def test_page_is_forbidden_when_it_is_for_staff(path: str, shopper: Client) -> None:
    answer = shopper.get(path)

    assert answer.status_code == 403
    assert "This page is not open to you" in answer.content.decode()


@pytest.mark.parametrize("path", ["/nothing/", "/products/nothing/", "/products/nothing.svg", "/reports/x/"])
def test_page_is_not_found_with_our_own_page(path: str, shopper: Client) -> None:
    answer = shopper.get(path)

    assert answer.status_code == 404
    assert "There is nothing at this address" in answer.content.decode()


@pytest.mark.parametrize(
    "path", ["basket/add/{slug}/", "basket/change/{slug}/", "orders/x/pay/", "orders/x/cancel/", "orders/x/nudge/"]
)
def test_get_is_not_allowed_where_something_changes(path: str, shopper: Client) -> None:
    answer = shopper.get("/" + path.format(slug=make_product().slug))

    assert answer.status_code == 405


@pytest.mark.parametrize(
    ("page", "next_page"),
    [
        ({"Referer": "http://testserver/orders/7K3M-QX2A/"}, "/orders/7K3M-QX2A/"),
        ({"Referer": "https://elsewhere.example.com/orders/"}, "/dashboard/"),
        ({"Referer": "http://[testserver/orders/"}, "/dashboard/"),
        ({"Referer": "http://[testserver]/orders/"}, "/dashboard/"),
        ({"Referer": "http://\u2100/orders/"}, "/dashboard/"),
        ({}, "/dashboard/"),
    ],
)
def test_button_pressed_after_the_session_ended_leads_back_to_its_page(
    page: dict[str, str], next_page: str, client: Client
) -> None:
    answer = client.post("/orders/7K3M-QX2A/pay/", headers=page)

    assert answer["Location"] == f"/accounts/login/?next={next_page}"
    assert "this was not done" in messages_of(answer)[0]


@pytest.mark.parametrize("path", ["/", "/basket/", "/orders/", "/dashboard/"])
def test_post_is_not_allowed_where_something_is_only_shown(path: str, shopper: Client) -> None:
    assert shopper.post(path).status_code == 405


def test_post_is_refused_with_our_own_page_when_the_csrf_token_is_missing(customer: User) -> None:
    client, product = Client(enforce_csrf_checks=True), make_product()
    client.force_login(customer)

    answer = add(client, product)

    assert (answer.status_code, basket_of(client)) == (403, {})
    assert "That form is no longer valid" in answer.content.decode()


def test_pages_carry_a_strict_content_security_policy(client: Client) -> None:
    policy = client.get("/")["Content-Security-Policy"]

    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


# --- Queries ---


def fill_catalogue(client: Client, customer: User) -> None:
    make_product()


def fill_basket(client: Client, customer: User) -> None:
    add(client, make_product())
    client.get("/basket/")


def fill_orders(client: Client, customer: User) -> None:
    place_order(customer)


@pytest.mark.parametrize(
    ("path", "fill"),
    [("/", fill_catalogue), ("/basket/", fill_basket), ("/checkout/", fill_basket), ("/orders/", fill_orders)],
)
def test_page_makes_as_many_queries_for_three_rows_as_for_one(
    path: str, fill: Callable[[Client, User], None], shopper: Client, customer: User
) -> None:
    fill(shopper, customer)
    one = queries_of(shopper, path)
    for _ in range(2):
        fill(shopper, customer)

    three = queries_of(shopper, path)

    assert three == one


def test_order_page_makes_as_many_queries_for_three_items_as_for_one(shopper: Client, customer: User) -> None:
    one = place_order(customer)
    for _ in range(3):
        add(shopper, make_product())
    check_out(shopper)
    three = Order.objects.exclude(pk=one.pk).get()

    counts = [queries_of(shopper, order.get_absolute_url()) for order in (three, one, three)]

    assert counts[1] == counts[2]


def queries_of(client: Client, path: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert client.get(path).status_code == 200
    return len(queries)


def test_new_customer_sees_no_orders(login: Login) -> None:
    answer = login(make_user()).get("/orders/")

    assert "No orders yet" in answer.content.decode()
