"""The first visit: the strip of development with its one-click sign-ins and its tour, and *How it works*."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts.development import WHO
from accounts.models import User
from durable.trace import label_of
from myproject.monitoring import task_table
from myproject.traces.models import Run
from orders import services
from orders.models import Card, Order, Status
from reports import first_visit
from tests.factories import make_user, place_order, put
from tests.test_behind import make_run

pytestmark = pytest.mark.django_db
Login = Callable[[User], Client]


@pytest.fixture
def people() -> dict[str, User]:
    return {role: make_user(email=email, is_staff=role != "customer") for role, email in WHO.items()}


# --- One click ---


@pytest.mark.parametrize("role", WHO)
def test_one_click_signs_in_in_development(role: str, people: dict[str, User], settings: Settings) -> None:
    settings.DEBUG = True
    client = Client()

    answer = client.post(f"/people/sign-in-as/{role}/")

    assert answer.status_code == 302
    assert client.get("/dashboard/").context["request"].user == people[role]


@pytest.mark.parametrize("role", [*WHO, "nobody"])
def test_there_is_no_such_page_in_production(role: str, people: dict[str, User], settings: Settings) -> None:
    settings.DEBUG = False
    client = Client()

    answer = client.post(f"/people/sign-in-as/{role}/")

    assert answer.status_code == 404
    assert "_auth_user_id" not in client.session
    assert "sign-in-as" not in client.get("/").content.decode()


def test_one_click_needs_the_token_and_a_post(people: dict[str, User], settings: Settings) -> None:
    settings.DEBUG = True
    strict = Client(enforce_csrf_checks=True)

    assert strict.post("/people/sign-in-as/staff/").status_code == 403
    assert strict.get("/people/sign-in-as/staff/").status_code == 405
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', strict.get("/").content.decode())
    assert token is not None
    answer = strict.post("/people/sign-in-as/staff/", {"csrfmiddlewaretoken": token[1]})
    assert answer.status_code == 302


def test_nobody_else_can_be_signed_in_as(people: dict[str, User], settings: Settings) -> None:
    settings.DEBUG = True
    make_user(email="owner@example.com", is_staff=True)

    assert Client().post("/people/sign-in-as/owner/").status_code == 404


# --- The tour ---


def ticked(client: Client) -> list[str]:
    text = client.get("/").content.decode()
    return re.findall(r'<li class="ticked">.*?<a href="[^"]*">([^<]+)</a>', text)


def test_tour_ticks_itself_off_and_survives_a_change_of_person(people: dict[str, User], settings: Settings) -> None:
    settings.DEBUG = True
    client = Client()
    seen = [ticked(client)]
    client.post("/people/sign-in-as/customer/")
    put(place_order(people["customer"]), Status.COMPLETED)
    seen.append(ticked(client))
    client.post("/people/sign-in-as/staff/")
    client.post("/people/sign-in-as/customer/")

    seen.append(ticked(client))

    assert seen == [[], ["Sign in", "Order something"], ["Sign in", "Order something"]]


def test_tour_does_not_count_what_was_there_before(people: dict[str, User], settings: Settings) -> None:
    settings.DEBUG = True
    place_order(people["customer"])
    client = Client()
    client.post("/people/sign-in-as/customer/")

    assert ticked(client) == ["Sign in"]


@pytest.mark.parametrize(("claimed", "ticks"), [(True, 0), (False, 1)])
def test_order_that_outlived_its_worker_is_ticked(
    claimed: bool, ticks: int, people: dict[str, User], settings: Settings
) -> None:
    settings.DEBUG = True
    client = Client()
    client.post("/people/sign-in-as/customer/")
    client.get("/")
    order = place_order(people["customer"])
    make_run(*[label_of(order)] if claimed else [])

    with time_machine.travel(timezone.now() + timedelta(minutes=1)):
        put(order, Status.COMPLETED, completed_at=order.created_at + timedelta(seconds=5))
        seen = ticked(client)

    assert seen.count("Kill a worker while the slow card is charged") == ticks


def test_staff_has_more_to_try(people: dict[str, User], settings: Settings) -> None:
    settings.DEBUG = True
    client = Client()
    counts = []
    for role in ("customer", "staff"):
        client.post(f"/people/sign-in-as/{role}/")
        counts.append(len(first_visit.checklist(client.get("/").wsgi_request)))

    assert counts == [4, 7]


# --- How it works ---


def states(client: Client) -> list[str]:
    return re.findall(
        r"way-step way-(\w+)", client.get("/how-it-works/", headers={"HX-Request": "true"}).content.decode()
    )


def test_steps_light_up_as_the_order_goes_on(login: Login, customer: User) -> None:
    client = login(customer)
    seen = [states(client)]
    order = place_order(customer)
    seen.append(states(client))
    services.reserve([order.pk])
    seen.append(states(client))
    Order.objects.filter(pk=order.pk).move(Status.COMPLETED, completed_at=timezone.now(), mail_due_at=timezone.now())
    seen.append(states(client))

    assert seen == [
        ["later"] * 6,
        ["done", "now"] + ["later"] * 4,
        ["done"] * 3 + ["now"] + ["later"] * 2,
        ["done"] * 5 + ["now"],
    ]


def test_steps_show_the_own_order_only(login: Login, customer: User) -> None:
    place_order()

    assert states(login(customer)) == states(Client()) == ["later"] * 6


def test_page_has_the_tasks_for_staff_and_in_development(login: Login, staff: User, settings: Settings) -> None:
    settings.DEBUG = False
    pages = [client.get("/how-it-works/").content.decode() for client in (Client(), login(staff))]

    assert ['id="tasks"' in page for page in pages] == [False, True]
    assert 'href="/how-it-works/"' in Client().get("/").content.decode()


def test_table_has_medians_next_run_and_file() -> None:
    call_command("sync_schedules", verbosity=0)
    for milliseconds in (10, 20, 900):
        run = make_run("a.b:1", task="orders.tasks.check_pending_orders")
        took = timedelta(milliseconds=milliseconds)
        Run.objects.filter(pk=run.pk).update(ended_at=run.started_at + took)

    rows = {row.name: row for row in task_table.rows()}

    row = rows["orders.tasks.check_pending_orders"]
    assert row.runs == 3
    assert [row.waited, row.ran] == pytest.approx([20, 20])
    assert row.next_at is not None
    assert row.code.startswith("orders/tasks.py:")
    assert row.queue == "orders"
    assert rows["myproject.tasks.canary"].code.startswith("myproject/monitoring/tasks.py:")
    assert rows["orders.tasks.process_order"].next_at is None


def test_table_looks_at_the_newest_runs_only(login: Login, staff: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_table, "MOST_RUNS", 2)
    for number, milliseconds in enumerate((900, 20, 10)):
        run = make_run("a.b:1", task="orders.tasks.check_pending_orders")
        started = timezone.now() - timedelta(minutes=3 - number)
        ended = started + timedelta(milliseconds=milliseconds)
        Run.objects.filter(pk=run.pk).update(started_at=started, ended_at=ended)

    page = login(staff).get("/how-it-works/").content.decode()

    assert "2&nbsp;or more" in page
    assert "15.0&nbsp;ms" in page


@pytest.mark.parametrize("count", [1, 3])
def test_page_makes_as_many_queries_for_one_order_as_for_three(
    count: int, login: Login, customer: User, django_assert_num_queries: Any
) -> None:
    for _ in range(count):
        place_order(customer, card=Card.VISA)
    client = login(customer)

    with django_assert_num_queries(4):
        client.get("/how-it-works/", headers={"HX-Request": "true"})
