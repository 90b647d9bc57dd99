"""Staff's list of all orders: what it finds, and what it does to many at once."""

import json
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from myproject.web import paging
from orders import forms
from orders.models import Order, Status
from tests.broker import Broker
from tests.factories import make_user, place_order, put

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db
PATH = "/back-office/orders/"


@pytest.fixture
def office(login: Callable[[User], Client], staff: User) -> Client:
    return login(staff)


def references(answer: Any) -> list[str]:
    return [order.reference for order in answer.context["page"]]


def test_list_finds_by_reference_name_address_and_state(office: Client) -> None:
    ada, bob = make_user(name="Ada", email="ada@example.com"), make_user(name="Bob", email="bob@example.com")
    first, second = place_order(ada), put(place_order(bob), Status.COMPLETED)

    for query, found in (
        ("", [second, first]),
        (f"q={first.reference.lower()}", [first]),
        ("q=ada", [first]),
        ("q=BOB@EXAMPLE", [second]),
        ("status=completed", [second]),
        ("q=nobody", []),
        ("status=nonsense", [second, first]),
    ):
        assert references(office.get(f"{PATH}?{query}")) == [order.reference for order in found], query


@pytest.mark.parametrize("few", [0, 1000])
def test_search_finds_the_same_whether_few_or_many_have_such_a_name(
    few: int, office: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "FEW", few)
    theirs = [place_order(make_user(name=name)) for name in ("Ada", "Adam")]
    place_order(make_user(name="Bob"))

    found = references(office.get(f"{PATH}?q=ada"))

    assert found == [order.reference for order in reversed(theirs)]


def test_list_that_is_longer_than_it_is_paged_says_so(office: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_LISTED", 2)
    placed = [place_order() for _ in range(3)]

    page = office.get(PATH)

    assert "2 or more orders" in page.content.decode()
    assert references(page) == [order.reference for order in reversed(placed[1:])]


def test_list_shows_what_needs_a_person_first(office: Client) -> None:
    flagged, other = place_order(), place_order()
    Order.objects.filter(pk=flagged.pk).flag("Look at it.")

    answer = office.get(PATH)

    assert [order.reference for order in answer.context["flagged"]] == [flagged.reference]
    assert references(answer) == [other.reference]
    assert "Look at it." in answer.content.decode()


@pytest.mark.parametrize("count", [1, 3])
def test_list_takes_the_same_queries_however_many_orders(
    count: int, office: Client, django_assert_num_queries: Any
) -> None:
    for _ in range(count):
        place_order()

    # Session, person, number and page of the orders, those that need a person, and the basket.
    with django_assert_num_queries(6):
        office.get(PATH)


def test_many_are_queued_again(office: Client, broker: Broker, django_capture_on_commit_callbacks: Any) -> None:
    orders = [place_order() for _ in range(2)]
    done = put(place_order(), Status.COMPLETED)
    waiting = broker.lengths()["orders"]

    with django_capture_on_commit_callbacks(execute=True):
        office.post(f"{PATH}requeue/", {"order": [order.reference for order in (*orders, done)]})

    assert broker.lengths()["orders"] == waiting + 2


def test_many_are_refunded_after_the_page_has_asked(office: Client) -> None:
    orders = [place_order() for _ in range(2)]
    for order in orders:
        order.payments.update(status="succeeded", provider_id=f"pi_{order.pk}")
        put(order, Status.COMPLETED)
    chosen = {"order": [order.reference for order in orders]}

    asked = office.post(f"{PATH}refund/", chosen).content.decode()
    [seen] = re.findall(r'name="seen" value="([^"]+)"', asked)
    stale = office.post(f"{PATH}refund/", chosen | {"seen": json.dumps({orders[0].reference: "was otherwise"})})
    assert not Order.objects.filter(payments__refund_due_at__isnull=False).exists()
    office.post(f"{PATH}refund/", chosen | {"seen": unescape(seen)})

    assert "no longer so" in stale.content.decode()
    assert Order.objects.filter(payments__refund_due_at__isnull=False).count() == 2


@pytest.mark.parametrize("seen", ["[" * 100_000, '{"a":' * 100_000, "[1]", "{", "1" * 5000, '{"a": [NaN, "\\ud800"]}'])
def test_words_that_no_page_has_said_are_asked_about_again(seen: str, office: Client) -> None:
    order = place_order()
    chosen = {"order": order.reference, "seen": seen}
    listed = {"action": "refund", "_selected_action": str(order.pk), "seen": seen}

    asked = [office.post(f"{PATH}refund/", chosen), office.post("/admin/orders/order/", listed)]

    assert [answer.status_code for answer in asked] == [200, 200]
    assert not Order.objects.filter(payments__refund_due_at__isnull=False).exists()


def test_nothing_chosen_refunds_nothing(office: Client) -> None:
    answer = office.post(f"{PATH}refund/", follow=True)

    assert "Please choose at least one order" in answer.content.decode()
