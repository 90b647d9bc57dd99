"""A click works when the broker does not; the sweep does the rest."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from django.test import Client

from accounts.models import User
from durable.task import breaker
from myproject import embedded
from orders import tasks
from orders.models import Order, Status
from tests.broker import Broker
from tests.factories import end_lease, make_product, place_order
from tests.orders.test_views import add, check_out
from tests.servers import broker_at

pytest_plugins = ["tests.broker"]
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.every_broker]

NOWHERE = broker_at(1)


@pytest.fixture
def shopper(login: Callable[[User], Client], customer: User) -> Client:
    return login(customer)


@pytest.fixture
def frozen() -> Iterator[socket.socket]:
    """A broker that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        server.setblocking(False)
        yield server


def address(server: socket.socket) -> str:
    return broker_at(server.getsockname()[1])


def tries(server: socket.socket) -> int:
    """Return how often somebody has connected since this was last asked."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


def test_checkout_queues_the_order(broker: Broker, shopper: Client) -> None:
    add(shopper, make_product())

    check_out(shopper)

    assert broker.messages() == [("orders", "orders.tasks.process_order", {"order_id": Order.objects.get().pk})]


def test_checkout_redirects_to_the_pending_order_when_the_broker_is_away(broker: Broker, shopper: Client) -> None:
    broker.use(NOWHERE)
    add(shopper, make_product())

    answer = check_out(shopper)

    order = Order.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, order.get_absolute_url())
    assert order.status == Status.PENDING
    assert shopper.get(answer["Location"]).status_code == 200


def test_checkout_does_not_wait_when_the_broker_is_frozen(
    broker: Broker, shopper: Client, frozen: socket.socket
) -> None:
    broker.use(address(frozen))
    add(shopper, make_product())
    start = time.monotonic()

    answer = check_out(shopper)

    assert answer.status_code == 302
    assert time.monotonic() - start < 8


def test_many_messages_wait_for_a_frozen_broker_once(
    broker: Broker,
    login: Callable[[User], Client],
    customer: User,
    staff: User,
    frozen: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(breaker, "SECONDS", 60.0)
    person = login(staff)
    orders = [place_order(customer) for _ in range(12)]
    broker.use(address(frozen))
    tasks.process_order.delay_on_commit(order_id=orders[0].pk)
    once = tries(frozen)
    broker.use(address(frozen))

    person.post("/back-office/orders/requeue/", {"order": [order.reference for order in orders]})

    assert tries(frozen) == once > 0
    assert Order.objects.filter(events__kind="nudged").count() == len(orders)


def test_order_is_queued_by_the_sweep_when_the_broker_was_away(broker: Broker, shopper: Client) -> None:
    broker.use(NOWHERE)
    add(shopper, make_product())
    check_out(shopper)
    broker.use(broker.url)
    end_lease(Order.objects.get())

    tasks.check_pending_orders()

    assert broker.messages() == [("orders", "orders.tasks.process_order", {"order_id": Order.objects.get().pk})]


def test_flagged_order_that_was_requeued_is_queued_by_the_sweep_until_a_worker_had_it(
    broker: Broker, login: Callable[[User], Client], staff: User
) -> None:
    order, untouched = place_order(), place_order()
    end_lease(order)
    end_lease(untouched)
    Order.objects.flag("Look for its charge.")
    broker.empty()
    broker.use(NOWHERE)
    login(staff).post("/back-office/orders/requeue/", {"order": order.reference})
    broker.use(broker.url)

    tasks.check_pending_orders()
    swept = broker.messages()
    Order.objects.filter(pk=order.pk).move(Status.PROCESSING)
    tasks.check_pending_orders()

    assert swept == [("orders", "orders.tasks.process_order", {"order_id": order.pk})]
    assert broker.messages() == []


def test_messages_survive_when_the_broker_is_restarted(
    broker: Broker, servers: tuple[embedded.Postgres, embedded.Server]
) -> None:
    order = place_order()
    tasks.process_order.delay(order_id=order.pk)

    servers[1].stop()
    servers[1].start()

    assert broker.messages() == [("orders", "orders.tasks.process_order", {"order_id": order.pk})]


@pytest.mark.parametrize("path", ["nudge/", "pay/"])
def test_button_works_when_the_broker_is_away(
    path: str, broker: Broker, login: Callable[[User], Client], staff: User
) -> None:
    broker.use(NOWHERE)
    order = place_order(staff)

    answer = login(staff).post(f"{order.get_absolute_url()}{path}", {"card": "pm_card_visa"})

    assert (answer.status_code, answer["Location"]) == (302, order.get_absolute_url())
