"""Behind the scenes: what ran for a row, where it waited, how long, and what it asked for outside."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import Permission
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts.models import User
from durable import trace
from durable.errors import TemporaryError
from myproject.storage.tasks import clear_task_results
from myproject.traces import recorder, waterfall
from myproject.traces.models import Run
from orders import tasks
from orders.models import Order, Status
from tests.factories import (
    make_digest,
    make_import,
    make_mail,
    make_notification,
    make_pack,
    make_report,
    make_user,
    place_order,
    put,
)
from tests.shop import Shop, wait_for

Login = Callable[[User], Client]


def make_run(*about: str, began: Any = None, **fields: Any) -> Run:
    began = began or timezone.now()
    defaults = {
        "task_id": "t-1",
        "task": "orders.tasks.process_order",
        "attempt": 1,
        "state": "SUCCESS",
        "queue": "orders",
        "worker": "worker@here",
        "pid": 4711,
        "sent_at": began - timedelta(milliseconds=20),
        "started_at": began,
        "ended_at": began + timedelta(milliseconds=100),
        "is_periodic": False,
        "about": [*about],
        "calls": [],
    }
    return Run.objects.create(**defaults | fields)


# --- Who sees it ---


@pytest.mark.django_db
@pytest.mark.parametrize(("debug", "seen"), [(True, 200), (False, 403)])
def test_customer_looks_behind_the_own_order_in_development_only(
    debug: bool, seen: int, login: Login, customer: User, settings: Settings
) -> None:
    settings.DEBUG = debug
    order = place_order(customer)
    page, behind = order.get_absolute_url(), f"{order.get_absolute_url()}behind/"
    client = login(customer)

    assert client.get(behind).status_code == seen
    assert (behind in client.get(page).content.decode()) is debug
    assert login(make_user()).get(behind).status_code == 404


@pytest.mark.django_db
def test_staff_looks_behind_each_kind_of_page(login: Login, staff: User, settings: Settings) -> None:
    settings.DEBUG = False
    rows: list[Any] = [place_order(), make_report(staff), make_import("sku\n"), make_pack(staff)]
    client = login(staff)
    for row in rows:
        make_run(trace.label_of(row), task=f"some.tasks.{row._meta.model_name}")

    for row in rows:
        url = f"{row.get_absolute_url()}behind/"
        assert f'hx-get="{url}"' in client.get(row.get_absolute_url()).content.decode()
        assert f"some.tasks.{row._meta.model_name}" in client.get(url).content.decode()


@pytest.mark.django_db
def test_run_leads_to_its_result_and_to_flower_for_who_may_see_them(login: Login, staff: User) -> None:
    order = place_order()
    make_run(trace.label_of(order), task_id="abc-1")
    support = make_user(is_staff=True)
    support.user_permissions.add(Permission.objects.get(codename="view_order"))

    pages = [login(person).get(f"{order.get_absolute_url()}behind/").content.decode() for person in (staff, support)]

    assert ["taskresult/?q=abc-1" in page for page in pages] == [True, False]
    assert ["/task/abc-1" in page for page in pages] == [True, False]


@pytest.mark.django_db
@pytest.mark.parametrize("make", [make_notification, make_mail, make_digest])
def test_admin_shows_what_ran_for_a_mail(make: Callable[[], Any], login: Login, staff: User) -> None:
    row = make()
    make_run(trace.label_of(row), task="some.tasks.send", trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
    page = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    behind = page.replace("/change/", "/behind/")
    client = login(staff)

    assert f'href="{behind}"' in client.get(page).content.decode()
    text = client.get(behind).content.decode()
    assert [part for part in ("some.tasks.send", "4bf92f3577b34da6a3ce929d0e0e4736") if part not in text] == []
    assert login(make_user(is_staff=True)).get(behind).status_code == 403


# --- What is recorded ---


@pytest.mark.django_db(transaction=True)
def test_order_shows_web_queue_worker_and_the_world_outside(shop: Shop, login: Login, staff: User) -> None:
    order = place_order()
    request = Client().get("/").wsgi_request
    token = recorder._CLICK.set((time.time(), request))
    tasks.process_order.delay(order_id=order.pk)
    recorder._CLICK.reset(token)
    label = trace.label_of(order)

    wait_for(lambda: Run.objects.concerning([label]).count() == 2, "both runs")

    process, confirm = Run.objects.concerning([label])
    assert [run.task for run in (process, confirm)] == [
        "orders.tasks.process_order",
        "orders.tasks.send_order_confirmation",
    ]
    assert (process.queue, process.state, process.attempt, process.about) == ("orders", "SUCCESS", 1, [label])
    assert process.clicked_at
    assert process.clicked_at <= process.sent_at <= process.started_at < process.ended_at
    assert process.path == "GET /"
    assert [call[:2] for call in process.calls + confirm.calls] == [
        ["Payment provider: charge", label],
        ["Mail server", label],
    ]
    assert all(call[3] > 0 and not call[4] for call in process.calls)
    text = login(staff).get(f"{order.get_absolute_url()}behind/").content.decode()
    shown = ("GET /", "orders/tasks.py:", "queue mail", f"process {process.pid}", "bar-wait", "bar-call")
    assert [part for part in shown if part not in text] == []


@pytest.mark.django_db(transaction=True)
def test_retry_says_why_and_counts_the_attempt(shop: Shop) -> None:
    order = place_order()
    shop.sandbox("/controls", {"fault": "error_before", "count": 1})
    tasks.process_order.delay(order_id=order.pk)
    label = trace.label_of(order)

    wait_for(lambda: Order.objects.get(pk=order.pk).status == Status.COMPLETED, "the order")

    runs = wait_for(lambda: [*Run.objects.concerning([label]).filter(task__endswith="process_order")][1:], "a retry")
    first = Run.objects.concerning([label])[0]
    assert (first.state, first.attempt, runs[0].attempt) == ("RETRY", 1, 2)
    assert "did not answer" in first.why
    assert first.calls[0][4] is True


@pytest.mark.django_db(transaction=True)
def test_run_that_found_nothing_to_do_is_not_recorded(shop: Shop) -> None:
    order = put(place_order(), Status.COMPLETED)
    tasks.process_order.delay(order_id=order.pk)
    other = place_order()

    tasks.process_order.delay(order_id=other.pk)

    wait_for(lambda: Run.objects.concerning([trace.label_of(other)]).exists(), "the other order")
    assert not Run.objects.filter(task="orders.tasks.process_order").exclude(about=[trace.label_of(other)]).exists()


class FakeTask:
    name = "some.task"

    class request:
        is_eager, retries, eta, hostname, delivery_info = False, 0, None, "w@h", {"routing_key": "mail"}
        sent_at, clicked, id = "yesterday", ["x" * 10, "POST /"], "t"


@pytest.mark.django_db
def test_message_that_lies_about_its_times_is_recorded_without_them() -> None:
    trace.begin()

    recorder.record(FakeTask(), "t", state="FAILURE")

    run = Run.objects.get()
    assert (run.clicked_at, run.path, run.sent_at) == (None, "", run.started_at)


@pytest.mark.django_db
def test_database_that_fails_loses_the_picture_only() -> None:
    trace.begin()

    with patch.object(type(Run.objects.all()), "record", side_effect=OperationalError("away")):
        recorder.record(FakeTask(), "t", state="FAILURE")

    assert not Run.objects.exists()


def test_reason_of_a_foreign_error_is_its_name_only() -> None:
    trace.begin()
    recorder.note_failure(ValueError("somebody@example.com"))
    foreign = trace.end()
    trace.begin()
    recorder.note_failure(TemporaryError("The provider is away"))
    ours = trace.end()

    assert (foreign and foreign.why, ours and ours.why) == ("ValueError", "The provider is away")


@pytest.mark.django_db
def test_old_runs_are_cleared_and_idle_ones_sooner() -> None:
    now = timezone.now()
    kept = [make_run("a.b:1", began=now - timedelta(days=30)), make_run(began=now - timedelta(hours=23))]
    make_run("a.b:1", began=now - timedelta(days=32))
    make_run(began=now - timedelta(hours=25))

    clear_task_results()

    assert {run.pk for run in Run.objects.all()} == {run.pk for run in kept}


# --- The picture ---


@pytest.mark.django_db
def test_runs_far_apart_have_time_lines_of_their_own() -> None:
    now = timezone.now()
    make_run("a.b:1", began=now - timedelta(minutes=5))
    make_run("a.b:1", began=now, clicked_at=now - timedelta(milliseconds=50), path="POST /x/")

    first, second = waterfall.flows([*Run.objects.concerning(["a.b:1"])], {"a.b:1"})

    assert [line.kind for line in first.lines] == ["run"]
    assert [line.kind for line in second.lines] == ["web", "run"]
    assert second.milliseconds == pytest.approx(150)
    web, run = second.lines
    assert [(bar.x, bar.kind) for bar in web.bars + run.bars] == [
        (0, "web"),
        (200, "wait"),
        (pytest.approx(333, 1), "run"),
    ]


@pytest.mark.django_db
def test_round_trips_of_other_rows_are_left_out() -> None:
    at = time.time()
    make_run("a.b:1", "a.b:2", calls=[["mine", "a.b:1", at, 5, False], ["theirs", "a.b:2", at, 5, False]])

    (flow,) = waterfall.flows([*Run.objects.concerning(["a.b:1"])], {"a.b:1"})

    assert [line.name for line in flow.lines if line.kind == "call"] == ["mine"]


@pytest.mark.django_db
@pytest.mark.parametrize("count", [1, 3])
def test_picture_makes_one_query(count: int, django_assert_num_queries: Any) -> None:
    for _ in range(count):
        make_run("a.b:1")

    with django_assert_num_queries(1):
        waterfall.flows([*Run.objects.concerning(["a.b:1"])], {"a.b:1"})


def test_source_of_a_task_is_the_line_of_its_function() -> None:
    for task in ("orders.tasks.process_order", "orders.tasks.check_pending_orders"):
        path, line = waterfall.source_of(task).split(":")
        assert path == "orders/tasks.py"
        assert int(line) > 20
    assert [waterfall.source_of(task) for task in ("no.such.task", "celery.chord")] == ["", ""]
