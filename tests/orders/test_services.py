import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from threading import Barrier
from typing import TypeVar
from unittest.mock import patch

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from durable.errors import TemporaryError
from orders import payments, services
from orders.models import MOST_ATTEMPTS, Card, Order, Payment, PaymentStatus, Product, Status
from tests.factories import claim, end_lease, make_product, make_user, place_order, put, running

pytestmark = pytest.mark.django_db

T = TypeVar("T")
VALID = payments.Charged("pi_1")
DECLINE = payments.Declined("Your card was declined.")
SILENCE = TemporaryError("The payment provider did not answer: timeout")


class Provider:
    """Answers each charge so, and remembers for what it was asked; only the socket is stubbed."""

    def __init__(self, *outcomes: payments.Outcome) -> None:
        self.outcomes = outcomes
        self.asked: list[uuid.UUID] = []

    def charge_all(self, started: list[Payment]) -> list[payments.Outcome]:
        self.asked += [payment.key for payment in started]
        return [self.outcomes[min(number, len(self.outcomes) - 1)] for number, _ in enumerate(started)]


def process(*orders: Order, task_id: str = "task", outcome: payments.Outcome = VALID) -> services.Processed:
    return process_with(Provider(outcome), *orders, task_id=task_id)


def process_with(provider: Provider, *orders: Order, task_id: str = "task") -> services.Processed:
    with patch.object(payments, "charge_all", provider.charge_all):
        return reserve_and_process([order.pk for order in orders], task_id)


def reserve_and_process(order_ids: list[int], task_id: str = "task") -> services.Processed:
    """Do what the task does with orders that it has claimed."""
    with running(task_id):
        services.reserve(order_ids)
        return services.process_orders(list(Order.objects.filter(pk__in=order_ids)))


def at_once(*calls: Callable[[], T]) -> list[T]:
    """Run the calls at the same time, each with a database connection of its own."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        try:
            connection.ensure_connection()
            barrier.wait(10)
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def kinds(order: Order) -> list[str]:
    return [event.kind for event in order.events.order_by("pk")]


def status_of(order: Order) -> str:
    return Order.objects.get(pk=order.pk).status


def stock_of(product: Product) -> int:
    return Product.objects.get(pk=product.pk).stock


# --- Placing ---


def test_place_order_writes_what_was_in_the_basket_at_its_price() -> None:
    product = make_product(name="Lamp", price=Decimal("12.50"))

    order = place_order(product=product, quantity=3, card=Card.SLOW)

    Product.objects.update(name="Lantern", price=1)
    item, payment = order.items.get(), order.payments.get()
    assert (item.name, item.price, item.quantity, order.total) == ("Lamp", Decimal("12.50"), 3, Decimal("37.50"))
    assert (payment.card, payment.amount, payment.currency, payment.status) == (
        Card.SLOW,
        Decimal("37.50"),
        "EUR",
        "started",
    )
    assert (order.status, kinds(order)) == (Status.PENDING, ["placed"])


def test_place_order_leaves_the_stock_to_the_worker() -> None:
    product = make_product(stock=10)

    place_order(product=product, quantity=3)

    assert stock_of(product) == 10


def test_place_order_twice_with_one_token_is_one_order() -> None:
    customer, product = make_user(), make_product()
    first = place_order(customer, product)

    second = services.place_order(customer, {product: 1}, card=Card.VISA, token=first.token)

    assert second == first
    assert Order.objects.get().payments.count() == 1
    assert kinds(first) == ["placed"]


def test_place_order_makes_another_order_when_another_customer_has_the_token() -> None:
    product = make_product()
    first = place_order(product=product)

    second = services.place_order(make_user(), {product: 1}, card=Card.VISA, token=first.token)

    assert second != first
    assert Order.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_place_order_is_one_order_when_two_threads_send_one_token() -> None:
    customer, product, token = make_user(), make_product(), uuid.uuid4()

    def place() -> Order:
        return services.place_order(customer, {product: 1}, card=Card.VISA, token=token)

    placed = at_once(place, place, place, place)

    assert {order.pk for order in placed} == {Order.objects.get().pk}
    assert Payment.objects.count() == 1
    assert kinds(placed[0]) == ["placed"]


# --- Reserving ---


def test_reserve_takes_the_stock() -> None:
    product = make_product(stock=10)
    order = place_order(product=product, quantity=3)

    services.reserve([order.pk])

    assert (status_of(order), stock_of(product)) == (Status.PROCESSING, 7)


def test_reserve_twice_takes_the_stock_once() -> None:
    product = make_product(stock=10)
    order = place_order(product=product, quantity=3)

    services.reserve([order.pk])
    services.reserve([order.pk])

    assert stock_of(product) == 7
    assert kinds(order) == ["placed", "processing"]


def test_reserve_rejects_with_a_readable_reason_when_stock_does_not_suffice() -> None:
    product = make_product(name="Lamp", stock=2)
    order = place_order(product=product, quantity=3)

    services.reserve([order.pk])

    order.refresh_from_db()
    assert order.status == Status.REJECTED
    assert order.reason == "Out of stock: Lamp (2 left, 3 ordered). You were not charged."
    assert stock_of(product) == 2
    assert kinds(order) == ["placed", "rejected"]


def test_reserve_takes_nothing_when_one_of_two_items_is_short() -> None:
    plenty, scarce = make_product(stock=10), make_product(stock=0)
    order = services.place_order(make_user(), {plenty: 1, scarce: 1}, card=Card.VISA, token=uuid.uuid4())

    services.reserve([order.pk])

    assert (status_of(order), stock_of(plenty), stock_of(scarce)) == (Status.REJECTED, 10, 0)


def test_reserve_rejects_with_a_reason_that_fits_when_many_items_are_short() -> None:
    products = {make_product(name=f"A lamp with a long name {number:030}", stock=0): 1 for number in range(9)}
    order = services.place_order(make_user(), products, card=Card.VISA, token=uuid.uuid4())

    services.reserve([order.pk])

    order.refresh_from_db()
    assert (order.status, len(order.reason)) == (Status.REJECTED, 200)


def test_reserve_serves_the_first_orders_of_a_set_when_stock_runs_out() -> None:
    product = make_product(stock=3)
    orders = [place_order(product=product, quantity=2) for _ in range(3)]

    services.reserve([order.pk for order in orders])

    assert [status_of(order) for order in orders] == [Status.PROCESSING, Status.REJECTED, Status.REJECTED]
    assert stock_of(product) == 1


@pytest.mark.parametrize("round_number", range(3))
@pytest.mark.django_db(transaction=True)
def test_reserve_gives_the_last_unit_to_exactly_one_when_threads_race(round_number: int) -> None:
    product = make_product(stock=1)
    orders = [place_order(product=product) for _ in range(4)]

    at_once(*[lambda order=order: services.reserve([order.pk]) for order in orders])

    assert sorted(status_of(order) for order in orders) == ["processing", "rejected", "rejected", "rejected"]
    assert stock_of(product) == 0


@pytest.mark.django_db(transaction=True)
def test_reserve_does_not_deadlock_when_baskets_name_the_products_in_different_order() -> None:
    one, two = make_product(stock=10), make_product(stock=10)
    baskets = [{one: 1, two: 1}, {two: 1, one: 1}] * 4
    orders = [services.place_order(make_user(), basket, card=Card.VISA, token=uuid.uuid4()) for basket in baskets]

    at_once(*[lambda order=order: services.reserve([order.pk]) for order in orders])

    assert (stock_of(one), stock_of(two)) == (2, 2)


@pytest.mark.django_db(transaction=True)
def test_order_is_placed_while_another_gives_stock_back() -> None:
    product = make_product(stock=10)
    other = place_order(product=product)

    def place() -> Order:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '5s'")
        return place_order(product=product)

    with transaction.atomic():
        services.release([other.pk])
        [placed] = at_once(place)

    assert status_of(placed) == Status.PENDING


# --- Settling ---


def test_process_orders_completes_and_takes_the_stock() -> None:
    product = make_product(stock=10, price=Decimal("12.50"))
    order = place_order(product=product, quantity=3)

    processed = process(order)

    order.refresh_from_db()
    assert processed == ([order.pk], [])
    assert (order.status, order.total, stock_of(product)) == (Status.COMPLETED, Decimal("37.50"), 7)
    assert kinds(order) == ["placed", "processing", "completed"]


def test_process_orders_records_the_charge_and_owes_the_confirmation() -> None:
    order = place_order()

    process(order, outcome=payments.Charged("pi_42"))

    order.refresh_from_db()
    payment = order.payments.get()
    assert (payment.status, payment.provider_id) == ("succeeded", "pi_42")
    assert order.completed_at is not None
    assert list(Order.objects.mail_due()) == [order]


def test_process_orders_twice_is_once() -> None:
    product, provider = make_product(stock=10), Provider(VALID)
    order = place_order(product=product, quantity=3)

    first, second = process_with(provider, order), process_with(provider, order)

    assert (first.completed, second.completed) == ([order.pk], [])
    assert (stock_of(product), len(provider.asked)) == (7, 1)
    assert kinds(order) == ["placed", "processing", "completed"]


@pytest.mark.django_db(transaction=True)
def test_process_orders_is_once_when_two_workers_do_it_at_the_same_time() -> None:
    product = make_product(stock=10)
    order = place_order(product=product, quantity=3)

    with patch.object(payments, "charge_all", Provider(VALID).charge_all):
        processed = at_once(*[lambda: reserve_and_process([order.pk])] * 4)

    assert sorted(result.completed for result in processed) == [[], [], [], [order.pk]]
    assert stock_of(product) == 7
    assert kinds(order) == ["placed", "processing", "completed"]


def test_process_orders_gives_stock_back_and_says_why_when_declined() -> None:
    product = make_product(stock=10)
    order = place_order(product=product, quantity=3)

    processed = process(order, outcome=DECLINE)

    order.refresh_from_db()
    payment = order.payments.get()
    assert processed == ([], [])
    assert (order.status, order.reason) == (Status.PAYMENT_FAILED, "Your card was declined.")
    assert (payment.status, payment.reason) == ("declined", "Your card was declined.")
    assert stock_of(product) == 10
    assert kinds(order) == ["placed", "processing", "payment_failed"]


def test_settle_gives_stock_back_once_when_the_decline_arrives_twice() -> None:
    product = make_product(stock=10)
    order = place_order(product=product, quantity=3)
    services.reserve([order.pk])
    answer = {order.payments.get(): DECLINE}

    for _ in range(2):
        services.settle(answer, Order.objects.filter(pk=order.pk))

    assert stock_of(product) == 10
    assert kinds(order) == ["placed", "processing", "payment_failed"]


def test_settle_ends_with_a_reason_that_fits_when_the_provider_talks_long() -> None:
    order = place_order()

    process(order, outcome=payments.Declined("No. " * 200))

    order.refresh_from_db()
    assert (order.status, order.reason[:4], len(order.reason)) == (Status.PAYMENT_FAILED, "No. ", 200)


def test_process_orders_settles_nothing_that_was_taken_over_while_it_was_charged() -> None:
    order = place_order()

    def take_over(started: list[Payment]) -> list[payments.Outcome]:
        end_lease(order)
        claim(order, "another")
        return [DECLINE]

    with running("frozen"), patch.object(payments, "charge_all", take_over):
        processed = services.process_orders(services.claim_orders(order.pk, limit=1))

    assert processed.completed == []
    assert (status_of(order), order.payments.get().status) == (Status.PROCESSING, "started")


def test_process_orders_keeps_the_order_and_its_stock_when_there_is_no_answer() -> None:
    product = make_product(stock=10)
    order = place_order(product=product, quantity=3)

    processed = process(order, outcome=SILENCE)

    assert processed == ([], [SILENCE])
    assert (status_of(order), stock_of(product)) == (Status.PROCESSING, 7)
    assert order.payments.get().status == "started"
    assert kinds(order) == ["placed", "processing", "retry"]


def test_process_orders_asks_with_the_same_key_when_it_resumes() -> None:
    provider = Provider(SILENCE)
    order = place_order()
    process_with(provider, order)
    provider.outcomes = (VALID,)

    processed = process_with(provider, order)

    assert processed.completed == [order.pk]
    assert provider.asked == [order.payments.get().key] * 2
    assert kinds(order) == ["placed", "processing", "retry", "completed"]


def test_process_orders_treats_each_order_of_a_set_for_itself() -> None:
    product, sold_out = make_product(stock=10), make_product(stock=0)
    rejected = place_order(product=sold_out)
    good, declined, silent = (place_order(product=product, quantity=2) for _ in range(3))

    processed = process_with(Provider(VALID, DECLINE, SILENCE), rejected, good, declined, silent)

    assert processed == ([good.pk], [SILENCE])
    assert [status_of(order) for order in (rejected, good, declined, silent)] == [
        "rejected",
        "completed",
        "payment_failed",
        "processing",
    ]
    assert stock_of(product) == 6


def test_process_orders_does_nothing_for_an_empty_set() -> None:
    assert process() == ([], [])


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.REJECTED, Status.CANCELLED, Status.PAYMENT_FAILED])
def test_process_orders_leaves_an_order_alone_when_it_is_closed(status: Status) -> None:
    provider = Provider(VALID)
    order = put(place_order(), status)

    processed = process_with(provider, order)

    assert (processed, provider.asked) == (([], []), [])
    assert status_of(order) == status


def test_process_orders_writes_the_task_into_the_time_line() -> None:
    order = place_order()

    process(order, task_id="task-7")

    assert list(order.events.order_by("pk").values_list("task_id", flat=True)) == ["", "task-7", "task-7"]


def test_process_orders_makes_no_more_queries_when_the_set_is_larger() -> None:
    small = [place_order() for _ in range(2)]
    large = [place_order() for _ in range(10)]

    counts = [queries_of(orders) for orders in (small, large)]

    assert counts[0] == counts[1]


def queries_of(orders: list[Order]) -> int:
    with CaptureQueriesContext(connection) as queries:
        process(*orders)
    return len(queries)


# --- Paying again ---


def test_pay_again_starts_a_new_attempt_with_a_new_key() -> None:
    order = place_order(card=Card.DECLINED)
    process(order, outcome=DECLINE)

    again = services.pay_again(order, Card.VISA)

    first, second = order.payments.order_by("attempt")
    assert again is True
    assert (second.attempt, second.card, second.status) == (2, Card.VISA, "started")
    assert first.key != second.key
    assert kinds(order) == ["placed", "processing", "payment_failed", "pending"]


def test_pay_again_leads_to_a_completed_order() -> None:
    product = make_product(stock=10)
    order = place_order(product=product, quantity=3)
    process(order, outcome=DECLINE)
    services.pay_again(order, Card.VISA)

    process(order)

    assert (status_of(order), stock_of(product)) == (Status.COMPLETED, 7)
    assert list(order.payments.order_by("attempt").values_list("status", flat=True)) == ["declined", "succeeded"]


@pytest.mark.parametrize("status", [status for status in Status if status != Status.PAYMENT_FAILED])
def test_pay_again_does_nothing_when_the_payment_has_not_failed(status: Status) -> None:
    order = put(place_order(), status)

    again = services.pay_again(order, Card.VISA)

    assert again is False
    assert order.payments.count() == 1
    assert kinds(order) == ["placed"]


@pytest.mark.parametrize(("attempt", "is_last"), [(MOST_ATTEMPTS - 1, False), (MOST_ATTEMPTS, True)])
def test_pay_again_ends_with_a_word_before_the_column_does(attempt: int, is_last: bool, client: Client) -> None:
    order = place_order()
    process(order, outcome=DECLINE)
    again = {"card": Card.VISA, "amount": order.total, "currency": order.currency, "status": PaymentStatus.DECLINED}
    Payment.objects.bulk_create(Payment(order=order, attempt=n, **again) for n in range(2, attempt + 1))
    client.force_login(order.customer)

    page = client.get(order.get_absolute_url()).content.decode()
    answer = client.post(f"{order.get_absolute_url()}pay/", {"card": Card.VISA}, follow=True).content.decode()

    assert ("Pay with this card" in page, "place the order again" in page) == (not is_last, is_last)
    assert (order.payments.count(), "There is nothing to pay" in answer) == (MOST_ATTEMPTS, is_last)


@pytest.mark.django_db(transaction=True)
def test_pay_again_starts_one_attempt_when_the_button_is_pressed_twice() -> None:
    order = place_order()
    process(order, outcome=DECLINE)

    again = at_once(*[lambda: services.pay_again(order, Card.VISA)] * 3)

    assert sorted(again) == [False, False, True]
    assert order.payments.count() == 2


def test_order_is_found_by_the_sweep_when_its_message_was_lost() -> None:
    order = place_order()
    before = list(Order.objects.due())

    end_lease(order)

    assert (before, list(Order.objects.due())) == ([], [order])
    assert order.due_at is not None
    assert order.due_at > timezone.now() + timedelta(seconds=1)
