"""The JSON side: who may, what is accepted, and one shape for whatever is not."""

import io
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest
from django.test import Client
from django.test.client import MULTIPART_CONTENT
from hypothesis import HealthCheck, given
from hypothesis import settings as tries
from hypothesis import strategies as st

from accounts import services as people
from accounts.models import ApiToken, User
from myproject.api import access
from orders.models import Card, Order, Product, ProductImport
from reports.models import Report
from tests.broker import Broker
from tests.factories import PASSWORD, make_import, make_product, make_report, make_user, place_order

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db(transaction=True)

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(autouse=True)
def fresh(broker: Broker) -> None:
    cache.clear()


def asks(person: User) -> Ask:
    """Return what asks as a script of this person."""
    secret = ApiToken.objects.make(person, "script")

    def ask(method: str, path: str, data: Any = None, *, key: str = "", **more: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {secret}"} | ({"Idempotency-Key": key} if key else {})
        given = {} if data is None else {"data": data, "content_type": "application/json"}
        answer = getattr(Client(), method)(f"/api/v1/{path}", headers=headers, **(given | more))
        assert answer.headers["Content-Type"].startswith("application/json"), answer.content[:200]
        return answer.status_code, answer.json()

    return ask


@pytest.fixture
def ask(customer: User) -> Ask:
    return asks(customer)


def an_order(*skus: str, quantity: int = 1, card: str = Card.VISA) -> dict[str, Any]:
    return {"items": [{"sku": sku, "quantity": quantity} for sku in skus], "card": card}


def new_key() -> str:
    return str(uuid.uuid4())


# --- Tokens ---


@pytest.mark.parametrize("header", ["", "Bearer nonsense", "Bearer ", "Basic x", "Token x"])
def test_without_a_token_nothing_is_answered(header: str) -> None:
    answer = Client().get("/api/v1/orders/", headers={"Authorization": header} if header else {})

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_session_is_no_token(customer: User, login: Callable[[User], Client]) -> None:
    assert login(customer).get("/api/v1/orders/").status_code == 401


def test_only_a_digest_of_the_token_is_kept(customer: User) -> None:
    secret = people.make_token(customer, "script")

    assert secret not in str(ApiToken.objects.values())
    assert people.person_of_token(secret) == customer


def test_token_that_is_revoked_or_of_somebody_who_left_opens_nothing(customer: User) -> None:
    revoked, other = people.make_token(customer, "one"), people.make_token(customer, "two")

    people.revoke_token(customer, ApiToken.objects.get(name="one").pk)
    assert (people.person_of_token(revoked), people.person_of_token(other)) == (None, customer)

    User.objects.filter(pk=customer.pk).update(is_active=False)
    assert people.person_of_token(other) is None


def test_tokens_go_with_the_account(customer: User) -> None:
    people.make_token(customer, "script")

    people.anonymise(customer)

    assert not ApiToken.objects.exists()


def test_page_makes_shows_once_and_revokes_a_token(customer: User, client: Client) -> None:
    client.force_login(customer)
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})

    made = client.post("/people/tokens/", {"name": "Night run"})
    secret = made.context["secret"]
    again = client.get("/people/tokens/").content.decode()
    token = ApiToken.objects.get()
    client.post(f"/people/tokens/{token.pk}/revoke/")

    assert secret in made.content.decode()
    assert (secret in again, "Night run" in again) == (False, True)
    assert not ApiToken.objects.exists()


def test_nobody_revokes_the_token_of_another(customer: User, login: Callable[[User], Client]) -> None:
    people.make_token(customer, "script")

    login(make_user()).post(f"/people/tokens/{ApiToken.objects.get().pk}/revoke/")

    assert ApiToken.objects.exists()


def test_page_of_tokens_asks_for_the_password_when_that_was_long_ago(
    customer: User, login: Callable[[User], Client]
) -> None:
    answer = login(customer).get("/people/tokens/")

    assert (answer.status_code, "reauthenticate" in answer.headers["Location"]) == (302, True)


def test_one_person_may_ask_so_often_and_others_do_not_feel_it(ask: Ask) -> None:
    most = int(settings.API_RATE.partition("/")[0])

    statuses = [ask("get", "orders/")[0] for _ in range(most + 1)]

    assert (statuses[:most], statuses[most]) == ([200] * most, 429)
    assert asks(make_user())("get", "orders/")[0] == 200


def test_requests_at_once_count_each_for_their_own_person() -> None:
    throttle = access.PerPerson()
    most, people = throttle.most, [make_user() for _ in range(3)]
    begins = threading.Barrier(12)

    def ask_many(number: int) -> list[tuple[int, bool]]:
        request = HttpRequest()
        request.user = people[number % 3]
        begins.wait()
        allowed = [(number % 3, throttle.allow_request(request)) for _ in range(most // 4 + 5)]
        assert 0 < throttle.wait() <= throttle.seconds
        connection.close()
        return allowed

    with ThreadPoolExecutor(12) as pool:
        found = Counter(chain.from_iterable(pool.map(ask_many, range(12))))

    assert found == {
        (person, is_allowed): most if is_allowed else 20 for person in range(3) for is_allowed in (True, False)
    }


# --- Orders ---


def test_order_is_accepted_with_its_address_and_queued(ask: Ask, customer: User, broker: Broker) -> None:
    product = make_product(sku="LAMP-1")

    status, body = ask("post", "orders/", an_order("lamp-1", quantity=2), key=new_key())

    order = Order.objects.get()
    assert (status, body["status"], body["total"], body["currency"]) == (202, "pending", "25.00", "EUR")
    assert (order.customer, list(order.items.values_list("product", "quantity"))) == (customer, [(product.pk, 2)])
    assert "orders.tasks.process_order" in [name for _, name, _ in broker.messages()]
    assert ask("get", body["url"].removeprefix("/api/v1/"))[1]["items"][0]["sku"] == "LAMP-1"


def test_same_key_is_one_order_and_another_order_is_refused(ask: Ask) -> None:
    make_product(sku="A")
    make_product(sku="B")
    key = new_key()

    answers = [ask("post", "orders/", an_order("A"), key=key) for _ in range(2)]
    other = ask("post", "orders/", an_order("B"), key=key)

    assert answers[0] == answers[1]
    assert (other[0], other[1]["error"]["code"]) == (409, "key_reused")
    assert Order.objects.count() == 1


def test_keys_of_two_people_are_two(ask: Ask) -> None:
    make_product(sku="A")
    key = new_key()

    ask("post", "orders/", an_order("A"), key=key)
    asks(make_user())("post", "orders/", an_order("A"), key=key)

    assert Order.objects.count() == 2


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (an_order("NONE"), "items.0.sku"),
        (an_order("A", "a"), "items.1.sku"),
        (an_order("A", quantity=0), "items.0.quantity"),
        (an_order("GONE"), "items.0.sku"),
        (an_order("A", card="pm_of_somebody_else"), "card"),
        (an_order(), "items"),
        ({}, "items"),
    ],
)
def test_order_that_cannot_be_is_refused_with_the_field(data: Any, field: str, ask: Ask) -> None:
    make_product(sku="A")
    make_product(sku="GONE", is_active=False)

    status, body = ask("post", "orders/", data, key=new_key())

    assert (status, body["error"]["code"]) == (422, "invalid")
    assert field in body["error"]["fields"]
    assert not Order.objects.exists()


def test_order_obeys_what_the_basket_says(ask: Ask) -> None:
    make_product(sku="A", stock=1, name="Lamp")

    status, body = ask("post", "orders/", an_order("A", quantity=2), key=new_key())

    assert (status, body["error"]["code"]) == (422, "cannot_be_ordered")
    assert "Only 1 of" in body["error"]["message"]


def test_order_needs_a_key(ask: Ask) -> None:
    make_product(sku="A")

    answers = [ask("post", "orders/", an_order("A"), key=key) for key in ("", "nonsense")]

    assert [(status, list(body["error"]["fields"])) for status, body in answers] == [(422, ["Idempotency-Key"])] * 2


def test_orders_of_others_are_not_there_but_for_staff_who_may_see_them(ask: Ask, staff: User) -> None:
    order = place_order()

    assert ask("get", f"orders/{order.reference}/")[0] == 404
    assert ask("get", "orders/")[1] == {"count": 0, "results": []}
    assert asks(staff)("get", f"orders/{order.reference}/")[0] == 200
    assert asks(make_user(is_staff=True))("get", f"orders/{order.reference}/")[0] == 404


# --- Imports ---


def a_file(text: str = "sku,name,price,stock,category\nX,Lamp,1.00,1,Light\n") -> Any:
    file = io.BytesIO(text.encode())
    file.name = "products.csv"
    return file


def test_import_is_accepted_once_for_a_key(staff: User, broker: Broker) -> None:
    ask, key = asks(staff), new_key()

    answers = [ask("post", "imports/", key=key, data={"file": a_file()}, content_type=MULTIPART_CONTENT) for _ in "ab"]

    assert [status for status, _ in answers] == [202, 202]
    assert ProductImport.objects.count() == 1
    assert ask("get", answers[0][1]["url"].removeprefix("/api/v1/"))[1]["status"] == "queued"


def test_import_is_for_those_who_may(ask: Ask) -> None:
    row = make_import("sku\n")

    assert ask("get", f"imports/{row.pk}/")[0] == 403


# --- Reports ---


def test_customer_asks_for_a_statement_and_for_nothing_of_staffs(ask: Ask, customer: User, broker: Broker) -> None:
    days = {"format": "pdf", "start": "2026-01-01", "end": "2026-01-31"}

    status, body = ask("post", "reports/", {"kind": "statement"} | days)

    assert (status, body["status"], body["file"]) == (202, "queued", None)
    assert Report.objects.get().customer == customer
    assert ask("post", "reports/", {"kind": "sales"} | days)[0] == 403
    assert ask("post", "reports/", {"kind": "statement", "customer": "x@example.com"} | days)[0] == 403


def test_report_obeys_the_forms_of_the_pages(staff: User) -> None:
    status, body = asks(staff)(
        "post", "reports/", {"kind": "sales", "format": "pdf", "start": "2026-02-01", "end": "2026-01-01"}
    )

    assert status == 422
    assert body["error"]["fields"].keys() == {"format", "end"}


def test_reports_have_the_limit_of_the_pages(ask: Ask, settings: Any) -> None:
    settings.REPORTS_OPEN_MOST = 1
    statement = {"kind": "statement", "format": "pdf", "start": "2026-01-01"}

    statuses = [ask("post", "reports/", statement | {"end": f"2026-01-1{day}"})[0] for day in (1, 2)]

    assert statuses == [202, 409]


def test_report_of_another_is_not_there(ask: Ask) -> None:
    assert ask("get", f"reports/{make_report().pk}/")[0] == 404


# --- All of it ---


@pytest.mark.parametrize("path", ["nowhere/", "orders/x/y/", "reports/not-a-uuid/"])
def test_address_that_is_none_answers_in_json(path: str, ask: Ask) -> None:
    assert ask("get", path)[1]["error"]["code"] == "not_found"


def test_method_that_is_none_answers_in_json(ask: Ask) -> None:
    assert ask("delete", "orders/")[1]["error"]["code"] == "method_not_allowed"


def test_body_that_is_no_json_answers_in_json(ask: Ask) -> None:
    assert ask("post", "orders/", "{", key=new_key())[0] == 400


WORDS = st.text(max_size=20) | st.sampled_from(["\x00", "A", "sales", "statement", "pdf", "2026-01-01", "9" * 400])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
NAMES = ["items", "card", "kind", "format", "start", "end", "customer", "wants_mail"]
BODIES = st.dictionaries(st.sampled_from(NAMES), ANYTHING) | st.fixed_dictionaries(
    {
        "items": st.lists(st.fixed_dictionaries({"sku": WORDS, "quantity": st.integers()}), max_size=3),
        "card": st.sampled_from([*Card.values, "x"]),
        "kind": WORDS,
        "format": WORDS,
        "start": WORDS,
        "end": WORDS,
        "customer": WORDS,
    }
)


def operations() -> list[tuple[str, str]]:
    paths = make_api_schema()["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods]


def make_api_schema() -> Any:
    return Client().get("/api/v1/openapi.json").json()


@tries(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, word=WORDS)
def test_nonsense_is_refused_and_never_our_fault(body: Any, word: str, staff: User) -> None:
    cache.clear()
    make_product_once()
    ask = asks(staff)
    asked = []
    for method, path in operations():
        there = path.removeprefix("/api/v1/").replace("{reference}", "0000-0000").replace("{pk}", str(uuid.uuid4()))
        data = body if method == "post" else None
        asked.append((method, path, ask(method, there, data, key=new_key())[0]))
    asked.append(("get", "page", ask("get", f"orders/?page={word.encode().hex()}")[0]))

    assert [each for each in asked if each[2] >= 500] == []


def make_product_once() -> None:
    if not Product.objects.filter(sku="A").exists():
        make_product(sku="A")


def test_description_needs_nothing_from_elsewhere() -> None:
    page = Client().get("/api/v1/docs")

    assert page.status_code == 200
    assert "//cdn" not in page.content.decode()
    assert make_api_schema()["info"]["title"].endswith("API")
