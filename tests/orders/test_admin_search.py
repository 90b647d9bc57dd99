"""The admin's search of what is kept for good: orders, their payments and their events."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import User
from orders.models import Order, Payment
from tests.factories import make_user, place_order

pytestmark = pytest.mark.django_db
LISTS = ("order", "payment", "orderevent")


@pytest.fixture
def order() -> Order:
    ada = make_user(email="ada@example.com", name="Ada Lovelace")
    place_order(make_user(email="grace@example.com", name="Grace Hopper"))
    order = place_order(ada)
    Payment.objects.filter(order=order).update(provider_id="pi_Ada")
    return order


def found(client: Client, model: str, text: str) -> set[int]:
    """Return the orders whose rows the list shows."""
    answer = client.get(f"/admin/orders/{model}/", {"q": text})
    assert answer.status_code == 200
    return {getattr(row, "order_id", row.pk) for row in answer.context["cl"].result_list}


@pytest.mark.parametrize("model", LISTS)
def test_reference_is_found_by_its_start_in_upper_and_lower_case(
    model: str, order: Order, staff: User, login: Callable[[User], Client]
) -> None:
    asked = (order.reference, order.reference.lower(), f"  {order.reference[:8]} ")

    assert [found(login(staff), model, text) for text in asked] == [{order.pk}] * 3
    assert found(login(staff), model, order.reference[1:]) == set()


@pytest.mark.parametrize("text", ["lovelace", "Ada Love", "ADA@example", "ada@example.com"])
def test_orders_are_found_by_a_part_of_the_name_or_address(
    text: str, order: Order, staff: User, login: Callable[[User], Client]
) -> None:
    assert found(login(staff), "order", text) == {order.pk}


def test_payment_is_found_by_the_whole_of_its_id(order: Order, staff: User, login: Callable[[User], Client]) -> None:
    assert found(login(staff), "payment", "pi_Ada") == {order.pk}
    assert found(login(staff), "payment", "pi_A") == set()


@pytest.mark.parametrize("model", LISTS)
def test_what_is_no_text_finds_nothing_and_nothing_finds_all(
    model: str, order: Order, staff: User, login: Callable[[User], Client]
) -> None:
    assert [found(login(staff), model, text) for text in ("\x07", "%", "_", "x" * 3000)] == [set()] * 4
    assert len(found(login(staff), model, "  ")) == 2


def test_who_may_not_see_people_finds_no_order_by_theirs(order: Order, login: Callable[[User], Client]) -> None:
    clerk = make_user(is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_order"))

    page = login(clerk).get("/admin/orders/order/").content.decode()

    assert "Finds the start of a reference." in page
    assert found(login(clerk), "order", "ada@example.com") == set()
    assert found(login(clerk), "order", order.reference) == {order.pk}
