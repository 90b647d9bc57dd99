"""Lines of the log, the ids they carry, and what stays out of them. The whole journey is `test_log_journey.py`."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from threading import Barrier
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from celery.utils.log import get_task_logger
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, get_contextvars

from accounts.models import User
from myproject.celery import app
from myproject.logs import log_context, logs
from myproject.tasks import heartbeat
from orders import payments
from orders.models import Card
from orders.tasks import check_pending_orders, process_order
from tests.broker import Broker
from tests.factories import end_lease, make_product, place_order
from tests.shop import Shop, wait_for
from tests.test_env_example import settings_with

pytest_plugins = ["tests.broker"]

SIGNED = "WzEsImRpZ2VzdCJd:XfVq1Ylw0BqAtJmGNu8mWBrxXCHjYdTzhGBl1kVYxyz"


@pytest.fixture(autouse=True)
def nothing_bound() -> Iterator[None]:
    clear_contextvars()
    yield
    clear_contextvars()


@pytest.fixture
def written() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Return a function that reads what was logged, as machines would."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.json())
    logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)


# --- Lines ---------------------------------------------------------------------------------------------------


def test_line_is_one_object_from_every_logger(written: Callable[[], list[dict[str, Any]]]) -> None:
    bind_contextvars(request_id="a-request")

    logging.getLogger("orders").info("Order %s\nis %s", "ABCD-1234", "placed", extra={"order": "ABCD-1234", "of": "x"})
    structlog.get_logger("celery").warning("task_retrying", reason=ValueError("late"))

    ours, theirs = written()
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {
        "event": "Order ABCD-1234\nis placed",
        "request_id": "a-request",
        "order": "ABCD-1234",
        "level": "info",
        "logger": "orders",
    }
    assert (theirs["event"], theirs["reason"], theirs["level"]) == ("task_retrying", "ValueError('late')", "warning")


def test_line_of_an_exception_has_its_traceback(written: Callable[[], list[dict[str, Any]]]) -> None:
    try:
        int("a lamp for alice@example.com")
    except ValueError:
        logging.getLogger("orders").exception("Oh")

    [line] = written()
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("'a lamp for …'")


def test_line_for_people_is_no_json() -> None:
    record = logging.LogRecord("orders", logging.INFO, __file__, 1, "Order %s is placed", ("ABCD-1234",), None)

    line = logs.console().format(record)

    assert "Order ABCD-1234 is placed" in line
    assert not line.startswith("{")


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("mail to Alice.B+x@mail.example.co.uk, refused", "mail to …, refused"),
        ("redis://:s3cret@redis:6379/0 is away", "redis://…@redis:6379/0 is away"),
        ("postgres://shop:s3cret@db/shop?sslmode=x is away", "postgres://…@db/shop… is away"),
        ("Not Found: /orders/?q=alice", "Not Found: /orders/…"),
        (f"Not Found: /people/unsubscribe/{SIGNED}/", "Not Found: /people/unsubscribe/…/"),
        ("/reset/key/1a-c5tjdo-0123456789abcdef0123456789abcdef/", "/reset/key/…/"),
        ("no such card: pm_card_visa, key sk_test_4eC39", "no such card: …, key …"),
        ("Invalid request from ip=203.0.113.7: bad", "Invalid request from ip=… bad"),
        ("violates it\nDETAIL:  Failing row contains (1, Alice).\nEnd", "violates it\nDETAIL:…\nEnd"),
        # What must stay.
        ("Order ABCD-1234 is rejected Out of stock: Lamp (0 left, 2 ordered)", None),
        ("worker@host: task 0f8fad5b-d9cb-469f-a165-70867728950e at 12:30:01. Why?", None),
        ("connection to server at 10.0.0.5, port 5432 failed", None),
    ],
)
def test_scrub_leaves_out_what_no_line_may_hold(text: str, scrubbed: str | None) -> None:
    assert logs.scrub(text) == (text if scrubbed is None else scrubbed)


def test_scrub_of_a_long_word_takes_no_longer_than_it_must() -> None:
    # A pattern that looked from each letter to the end of the word would take minutes.
    assert len(logs.scrub("x" * 1_000_000)) == 1_000_000


def test_settings_know_two_formats_and_choose_by_debug(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    chosen = {}
    for debug in ("true", "false"):
        file = tmp_path / debug
        file.write_text(f"DEBUG={debug}\nSECRET_KEY=x\n")
        chosen[debug] = settings_with(file)["LOG_FORMAT"]
    (tmp_path / "wrong").write_text("LOG_FORMAT=xml\n")

    with pytest.raises(ImproperlyConfigured, match="json or console, not 'xml'"):
        settings_with(tmp_path / "wrong")

    assert chosen == {"true": "console", "false": "json"}


def test_celery_leaves_the_handlers_alone() -> None:
    before = list(logging.getLogger().handlers)

    with patch.object(type(app.log), "already_setup", new=False):
        app.log.setup_logging_subsystem(loglevel=logging.DEBUG)

    assert logging.getLogger().handlers == before


# --- Requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", ["0f8fad5b-d9cb-469f-a165-70867728950e", "edge-4711-abc"])
@pytest.mark.django_db
def test_request_keeps_the_id_that_a_proxy_gave_it(told: str, client: Client) -> None:
    assert client.get("/", headers={"X-Request-ID": told})["X-Request-ID"] == told


@pytest.mark.parametrize("told", ["", "short", "x" * 65, "alice@example.com", "two words-here", "a-line\nand-another"])
@pytest.mark.django_db
def test_request_gets_an_id_of_its_own_when_the_told_one_is_not_well_formed(told: str, client: Client) -> None:
    given = client.get("/", headers={"X-Request-ID": told})["X-Request-ID"]

    assert given != told
    assert log_context.ID.fullmatch(given)


@pytest.mark.django_db
def test_request_is_one_line_without_what_its_address_holds(
    client: Client, written: Callable[[], list[dict[str, Any]]]
) -> None:
    client.get(f"/people/unsubscribe/{SIGNED}/?email=alice", headers={"X-Request-ID": "the-request"})

    finished, refused = written()
    assert finished["request"] == "GET /people/unsubscribe/<str:token>/"
    assert (finished["code"], finished["request_id"]) == (404, "the-request")
    assert (refused["event"], refused["request_id"]) == (
        "Not Found: /people/unsubscribe/<str:token>/",
        "the-request",
    )


@pytest.mark.django_db
def test_request_of_an_order_says_so_on_each_line(
    customer: User, login: Callable[[User], Client], written: Callable[[], list[dict[str, Any]]]
) -> None:
    order = place_order(customer)

    login(customer).get(order.get_absolute_url())

    assert {line.get("order") for line in written()} == {order.reference}


def test_request_leaves_nothing_behind_for_the_next(rf: RequestFactory) -> None:
    seen: list[dict[str, Any]] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(get_contextvars())
        bind_contextvars(order="ABCD-1234")
        return HttpResponse()

    for _ in range(2):
        log_context.Requests(view)(rf.get("/"))

    assert [set(ids) for ids in seen] == [{"request_id"}] * 2
    assert seen[0] != seen[1]
    assert get_contextvars() == {}


# --- Tasks ---------------------------------------------------------------------------------------------------


def carried_by(broker: Broker) -> list[dict[str, str]]:
    """Take the messages; return what each carries."""
    found = []
    with app.connection_for_read(broker.url) as connection:
        for queue in ("default", "orders"):
            bound = app.amqp.queues[queue].bind(connection.default_channel)
            while message := bound.get(no_ack=True):
                found.append(message.headers[log_context.HEADER])
    return found


def test_message_carries_the_ids_and_nothing_else(broker: Broker) -> None:
    with bound_contextvars(request_id="the-request", task_id="the-task", task="x", order="ABCD-1234", email="a@b.de"):
        heartbeat.delay()

    assert carried_by(broker) == [{"request_id": "the-request", "parent_task_id": "the-task", "order": "ABCD-1234"}]


@pytest.mark.django_db
def test_message_of_a_later_commit_carries_what_was_bound_when_it_was_asked_for(
    broker: Broker, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        for reference in ("ABCD-1234", "EFGH-5678"):
            with bound_contextvars(order=reference):
                process_order.delay_on_commit(order_id=1)

    assert carried_by(broker) == [{"order": "ABCD-1234"}, {"order": "EFGH-5678"}]


@pytest.mark.django_db
def test_sweep_says_on_each_message_which_order_it_is_about(broker: Broker) -> None:
    orders = [place_order() for _ in range(2)]
    for order in orders:
        end_lease(order)

    check_pending_orders()

    assert sorted(carried["order"] for carried in carried_by(broker)) == sorted(order.reference for order in orders)


@pytest.mark.parametrize(
    "told",
    [
        None,
        "rubbish",
        ["request_id"],
        {"request_id": {"a": 1}},
        {"request_id": "alice@example.com", "order": "x" * 100_000, "event": "forged", 5: 6},
    ],
)
def test_header_that_is_not_ours_is_left_out(told: object) -> None:
    request = type("Request", (), {log_context.HEADER: told})()

    assert log_context.carried(request) == {}


def test_task_in_place_leaves_the_ids_of_its_caller_alone() -> None:
    with bound_contextvars(request_id="the-request"):
        heartbeat.apply()

        assert get_contextvars() == {"request_id": "the-request"}


def test_threads_of_a_set_know_the_task_and_each_its_own_order(
    written: Callable[[], list[dict[str, Any]]], db: None
) -> None:
    product = make_product()
    orders = [place_order(product=product, card=Card.DECLINED) for _ in range(2)]
    side_by_side = Barrier(2, timeout=20)

    def charge(payment: payments.Payment) -> str:
        side_by_side.wait()
        raise payments.Declined("No.")

    with bound_contextvars(task_id="the-task"), patch.object(payments, "charge", charge):
        payments.charge_all([order.payments.get() for order in orders])
        assert get_contextvars() == {"task_id": "the-task"}

    told = [(line["task_id"], line["order"]) for line in written() if line["logger"] == "orders.payments"]
    assert sorted(told) == sorted(("the-task", order.reference) for order in orders)


def test_worker_takes_messages_without_ids_or_with_rubbish_for_them(shop: Shop) -> None:
    """Those of the release before, and those of anybody who writes to the broker."""
    before = shop.log.stat().st_size

    sent = [
        heartbeat.apply_async(headers={log_context.HEADER: told}).id
        for told in ("rubbish", None, {"request_id": 5}, {"request_id": "the-request-of-a-test"})
    ]

    def ended() -> bool:
        lines = shop.log.read_text(errors="replace")[before:].splitlines()
        return all(any("task_succeeded" in line and f"task_id={pk}" in line for line in lines) for pk in sent)

    wait_for(ended, "all four")
    lines = shop.log.read_text(errors="replace")[before:].splitlines()
    known = [line for line in lines if "request_id=the-request-of-a-test" in line]
    assert {sent[3]} == {pk for pk in sent for line in known if f" task_id={pk}" in line}
    assert not any("Signal handler" in line for line in lines)


@pytest.mark.parametrize(("outside", "times"), [("", 1), ("1", 0)])
def test_line_for_people_has_one_clock_the_one_on_the_wall(
    outside: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES_HAVE_TIMES", outside)
    record = logging.LogRecord("orders", logging.INFO, __file__, 1, "Order 7 is placed", (), None)

    line = re.sub("\x1b\\[[0-9;]*m", "", logs.console().format(record))

    assert "Order 7 is placed" in line
    assert len(re.findall(r"\d\d:\d\d:\d\d", line)) == times
    assert "Z" not in line.split("[")[0]


def test_line_of_celerys_own_task_logger_carries_the_ids_too(written: Callable[[], list[dict[str, Any]]]) -> None:
    bind_contextvars(task_id="a-task", task="orders.tasks.process_order")

    get_task_logger("orders.tasks").info("Done")

    [line] = written()
    assert (line["event"], line["task_id"], line["task"]) == ("Done", "a-task", "orders.tasks.process_order")
