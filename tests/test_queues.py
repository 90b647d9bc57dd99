"""What waits at the broker and who works, as the dashboard's panel shows it."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import states
from django.test import Client
from redis import Redis

from accounts.models import User
from myproject.celery import app
from myproject.monitoring import broker as panel
from myproject.monitoring import health
from myproject.tasks import add, wait
from tests.broker import QUEUES, Broker
from tests.servers import broker_at
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

NOWHERE = broker_at(1)
HTMX = {"HX-Request": "true", "HX-Target": "queues-live"}


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget whether the broker answered a moment ago."""
    monkeypatch.setattr(health, "readiness", health.Readiness())


@pytest.fixture
def office(login: Callable[[User], Client], staff: User) -> Client:
    return login(staff)


@pytest.fixture
def frozen() -> Iterator[str]:
    """The address of a broker that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield broker_at(server.getsockname()[1])


@pytest.fixture
def redis(broker: Broker) -> Iterator[Any]:
    with app.connection_for_write(broker.url) as connection:
        yield connection.default_channel.client


def waiting() -> dict[str, panel.Waiting]:
    with panel.connected() as connection:
        return {queue.queue: queue for queue in panel.waiting(connection)}


def test_message_says_when_it_was_sent(broker: Broker, redis: Any) -> None:
    before = time.time()

    add.delay(1, 2)

    message = redis.lindex("default", 0)
    assert message is not None
    assert before <= (panel.sent_at(message) or 0) <= time.time()


@pytest.mark.every_broker
def test_each_queue_has_its_messages(broker: Broker) -> None:
    for queue in ("mail", "mail", "reports"):
        add.apply_async((1, 2), queue=queue)

    found = waiting()

    assert list(found) == QUEUES
    assert {name: queue.messages for name, queue in found.items() if queue.messages} == {"mail": 2, "reports": 1}
    assert found["default"].age is None


def test_age_is_that_of_the_oldest_message(broker: Broker) -> None:
    for ago in (500, 90, 7):
        add.apply_async((1, 2))
        move_back(broker, ago)

    age = waiting()["default"].age

    assert age is not None
    assert timedelta(seconds=499) < age < timedelta(seconds=520)


ODD_TIMES = ("NaN", "1e999", "-1e999", "1e300", "-1", "9" * 400, '"NaN"', '"soon"', "[]", "null", "[" * 100_000)


def test_message_with_an_odd_time_is_counted_and_hides_no_age(broker: Broker, redis: Any) -> None:
    for queue in ("mail", "reports"):
        add.apply_async((1, 2), queue=queue)
    for odd in ODD_TIMES:
        redis.rpush("mail", f'{{"headers": {{"sent_at": {odd}}}}}')
        redis.hset("unacked", f"bad-{odd[:9]}", odd)
        found = waiting()

        assert (found["mail"].age, found["reports"].age) == (None, timedelta(0)), odd[:9]
        assert running() == {}

    assert waiting()["mail"].messages == len(ODD_TIMES) + 1


def test_messages_of_all_priorities_count(broker: Broker) -> None:
    for priority in (0, 3, 9):
        add.apply_async((1, 2), priority=priority)

    assert waiting()["default"].messages == 3


def hold(redis: Any, queue: str, number: int) -> None:
    """Note a message as a worker does that has taken it and not yet acknowledged it."""
    redis.hset("unacked", f"tag-{queue}-{number}", json.dumps([{"body": "x"}, "", queue]))


def running() -> dict[str, int]:
    with panel.connected() as connection:
        return {name: number for name, number in panel.running(connection).items() if number}


def test_held_messages_count_for_their_queue(broker: Broker, redis: Any) -> None:
    for queue, number in (("orders", 0), ("orders", 1), ("reports", 0), ("gone", 0)):
        hold(redis, queue, number)
    for number, message in enumerate([b"", b"{", b"[]", b"1"]):
        redis.hset("unacked", f"bad-{number}", message)

    assert running() == {"orders": 2, "reports": 1}


def test_very_many_held_messages_are_estimated(broker: Broker, redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel, "SAMPLE", 400)
    for number in range(2000):
        hold(redis, "mail" if number % 4 else "orders", number)

    found = running()

    assert abs(sum(found.values()) - 2000) < 3
    assert 1200 < found["mail"] < 1800


def test_messages_that_are_taken_meanwhile_hide_none(
    broker: Broker, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(redis, "mail", 0)
    length = Redis.hlen

    def then_take_more(client: Any, key: str) -> int:
        held = length(client, key)
        for number in range(3):
            hold(redis, "orders", number)
        return held

    monkeypatch.setattr(Redis, "hlen", then_take_more)

    assert running()["mail"] == 1


def test_a_task_that_runs_is_held_until_it_has_ended(shop: Shop) -> None:
    result = wait.delay(seconds=3)
    wait_for(lambda: result.status == states.STARTED, "the worker to begin")

    wait_for(lambda: not running().get("default"), "the worker to let it go")

    assert result.status == states.SUCCESS


@pytest.mark.parametrize("message", [b"", b"{", b"[]", b"1", b'{"headers": null}', b'{"headers": {"sent_at": "x"}}'])
def test_message_that_does_not_say_its_age_still_counts(message: bytes, broker: Broker, redis: Any) -> None:
    redis.lpush("mail", message)

    assert waiting()["mail"] == panel.Waiting("mail", 1, None)


@pytest.mark.every_broker
def test_panel_shows_that_no_worker_answers(broker: Broker, office: Client) -> None:
    add.delay(1, 2)

    answer = office.get("/dashboard/queues/", headers=HTMX).content.decode()

    assert "No worker answers" in answer
    assert "<html" not in answer


@pytest.mark.every_broker
def test_panel_is_a_page_of_its_own_without_javascript(broker: Broker, office: Client) -> None:
    answer = office.get("/dashboard/queues/").content.decode()

    assert "<html" in answer
    assert all(f'<th scope="row" data-label="Queue">{queue}</th>' in answer for queue in QUEUES)


@pytest.mark.every_broker
@pytest.mark.parametrize("is_frozen", [False, True])
def test_panel_says_soon_that_the_broker_is_away(is_frozen: bool, broker: Broker, office: Client, frozen: str) -> None:
    broker.use(frozen if is_frozen else NOWHERE)
    start = time.monotonic()

    first, second = (office.get(f"/dashboard/queues/{query}", headers=HTMX) for query in ("", "?again=1"))

    # A busy machine may answer late once; the panel asks again by itself.
    assert "has not answered yet" in first.content.decode()
    assert 'hx-get="/dashboard/queues/?again=1"' in first.content.decode()
    assert "The broker does not answer" in second.content.decode()
    # It asks on like this, and does not take back what it says.
    assert 'hx-get="/dashboard/queues/?again=1" hx-trigger="every 15s"' in second.content.decode()
    assert time.monotonic() - start < 10


def test_dashboard_does_not_ask_the_broker(broker: Broker, office: Client) -> None:
    broker.use(NOWHERE)

    answer = office.get("/dashboard/")

    assert answer.status_code == 200
    assert 'hx-get="/dashboard/queues/" hx-trigger="load"' in answer.content.decode()


def test_panel_is_for_staff(customer: User, login: Callable[[User], Client]) -> None:
    assert login(customer).get("/dashboard/queues/").status_code == 403
    assert Client().get("/dashboard/queues/").status_code == 302


@pytest.mark.every_broker
def test_panel_names_the_worker_that_is_alive(shop: Shop, office: Client) -> None:
    def shown() -> bool:
        return "1 worker alive" in office.get("/dashboard/queues/", headers=HTMX).content.decode()

    wait_for(shown, "the worker to answer")


def move_back(broker: Broker, seconds: float) -> None:
    """Pretend that the newest message of the default queue was sent so long ago."""
    with app.connection_for_write(broker.url) as connection:
        redis = connection.default_channel.client
        message = json.loads(redis.lindex("default", 0))
        message["headers"]["sent_at"] -= seconds
        redis.lset("default", 0, json.dumps(message))
