"""Refunds by staff, and what is handed to a person."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.contrib.messages import get_messages
from django.core import mail as outbox
from django.db import connection, transaction
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from accounts.models import User
from durable.errors import PermanentError, TemporaryError
from orders import payments, services, tasks
from orders.models import Card, Order, OrderEvent, Payment, Status
from tests.broker import Broker
from tests.factories import claim, claim_orders, end_lease, make_product, make_user, place_order, put, running
from tests.orders.test_payments import Provider as HttpProvider
from tests.orders.test_payments import payment as payment
from tests.orders.test_payments import provider as provider
from tests.orders.test_payments import refusal
from tests.orders.test_services import (
    DECLINE,
    Provider,
    at_once,
    kinds,
    process,
    process_with,
    reserve_and_process,
    status_of,
    stock_of,
)

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

SILENCE = TemporaryError("The payment provider did not answer (APIConnectionError).")
REFUSED = PermanentError("The payment provider refused the refund: No.")
REFUNDED = (200, {"id": "re_1", "object": "refund", "status": "succeeded"})


class Refunds:
    """Answers each refund so, and remembers the keys."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.keys: list[uuid.UUID | None] = []

    def __call__(self, payment: Payment) -> str:
        self.keys.append(payment.refund_key)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def paid() -> Order:
    """A completed order of three, of which there were ten."""
    order = place_order(product=make_product(stock=10), quantity=3)
    process(order)
    return order


def refund(order: Order, answer: Refunds) -> bool:
    with patch.object(payments, "refund", answer), running("task"):
        return services.refund(order.pk)


def stock_left(order: Order) -> int:
    return stock_of(order.items.get().product)


def flag_of(order: Order) -> str:
    return Order.objects.get(pk=order.pk).flag_reason


def make_old(order: Order) -> None:
    """Make the order two days old, and held by no worker."""
    Order.objects.filter(pk=order.pk).update(opened_at=timezone.now() - timedelta(days=2))
    end_lease(order)


# --- The client ---


def test_refund_asks_with_its_own_key(provider: HttpProvider, payment: Payment) -> None:
    provider.answer = REFUNDED
    payment.provider_id, payment.refund_key = "pi_1", uuid.uuid4()

    refunded = payments.refund(payment)

    [(path, key, form)] = provider.requests
    assert (refunded, path, key) == ("re_1", "/v1/refunds", str(payment.refund_key))
    assert form["payment_intent"] == "pi_1"
    assert payment.refund_key != payment.key


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal(400, "invalid_request_error"), PermanentError),
        (refusal(400, "idempotency_error"), PermanentError),
        ((200, {"id": "re_1", "object": "refund", "status": "failed"}), PermanentError),
        (refusal(409, "idempotency_error"), TemporaryError),
        (refusal(500, "api_error"), TemporaryError),
        (None, TemporaryError),
    ],
)
def test_refund_maps_the_answer_to_our_errors(
    answer: Any, error: type[Exception], provider: HttpProvider, payment: Payment
) -> None:
    provider.answer = answer

    with pytest.raises(error) as raised:
        payments.refund(payment)

    assert type(raised.value) is error


def test_refund_is_done_when_the_charge_was_refunded_before(provider: HttpProvider, payment: Payment) -> None:
    provider.answer = refusal(400, "invalid_request_error", code="charge_already_refunded")

    assert payments.refund(payment) == ""


@pytest.mark.parametrize("answer", [{"amount_received": 3749}, {"amount_received": 0}, {"currency": "usd"}])
def test_charge_is_a_mismatch_when_the_provider_took_something_else(
    answer: dict[str, Any], provider: HttpProvider, payment: Payment
) -> None:
    provider.answer = (200, {"id": "pi_9", "object": "payment_intent", "status": "succeeded"} | answer)

    with pytest.raises(payments.Mismatch, match=r"instead of €37\.50") as raised:
        payments.charge(payment)

    assert raised.value.provider_id == "pi_9"


# --- Refunding ---


def test_refund_ends_the_order_and_gives_money_and_goods_back(paid: Order) -> None:
    wanted = services.want_refund(paid, by="Sam")

    done = refund(paid, Refunds("re_1"))

    payment = paid.payments.get()
    assert (wanted, done, status_of(paid), stock_left(paid)) == (True, True, Status.REFUNDED, 10)
    assert (payment.status, payment.refund_id, payment.refund_due_at) == ("refunded", "re_1", None)
    assert kinds(paid) == ["placed", "processing", "completed", "refund_wanted", "refunded"]


def test_refund_twice_is_once(paid: Order) -> None:
    services.want_refund(paid, by="Sam")
    provider = Refunds("re_1")

    done = [refund(paid, provider) for _ in range(2)]

    assert (done, len(provider.keys), stock_left(paid)) == ([True, False], 1, 10)


def test_refund_calls_off_the_confirmation_that_is_still_owed(paid: Order) -> None:
    services.want_refund(paid, "staff")

    refund(paid, Refunds("re_1"))
    tasks.send_order_confirmation.apply(kwargs={"order_id": paid.pk})

    assert not Order.objects.mail_due().exists()
    assert outbox.outbox == []


def test_settle_refund_twice_is_once(paid: Order) -> None:
    services.want_refund(paid, by="Sam")
    payment = claim(paid.payments.get())

    settled = [services.settle_refund(payment, "re_1") for _ in range(2)]

    assert (settled, stock_left(paid)) == ([True, False], 10)
    assert kinds(paid).count("refunded") == 1


@pytest.mark.django_db(transaction=True)
def test_refund_is_once_when_threads_race(paid: Order) -> None:
    wanted = at_once(*[lambda: services.want_refund(paid, by="Sam")] * 3)

    with patch.object(payments, "refund", Refunds("re_1")):
        done = at_once(*[lambda: services.refund(paid.pk)] * 3)

    assert sorted(wanted) == sorted(done) == [False, False, True]
    assert (stock_left(paid), kinds(paid).count("refunded")) == (10, 1)


@pytest.mark.django_db(transaction=True)
def test_refund_and_a_new_wish_for_it_do_not_deadlock(paid: Order) -> None:
    services.want_refund(paid, by="Sam")

    with patch.object(payments, "refund", Refunds("re_1")):
        at_once(*[lambda: services.refund(paid.pk), lambda: services.want_refund(paid, by="Sam")] * 3)

    assert (status_of(paid), stock_left(paid)) == (Status.REFUNDED, 10)


def test_refund_asks_with_the_same_key_when_the_outcome_is_unknown(paid: Order) -> None:
    services.want_refund(paid, by="Sam")
    provider = Refunds(SILENCE, "re_1")

    with pytest.raises(TemporaryError):
        refund(paid, provider)
    before = status_of(paid)
    refund(paid, provider)

    assert (before, status_of(paid)) == (Status.COMPLETED, Status.REFUNDED)
    assert provider.keys == [paid.payments.get().refund_key] * 2
    assert kinds(paid)[-3:] == ["refund_wanted", "retry", "refunded"]


def test_refund_is_handed_to_a_person_when_it_is_refused(paid: Order) -> None:
    services.want_refund(paid, by="Sam")
    provider = Refunds(REFUSED, "re_2")

    done = refund(paid, provider)

    assert (done, status_of(paid), stock_left(paid)) == (False, Status.COMPLETED, 7)
    assert flag_of(paid) == str(REFUSED)
    assert services.want_refund(paid, by="Sam") is True
    assert refund(paid, provider) is True
    assert provider.keys[0] != provider.keys[1]


@pytest.mark.parametrize("status", [status for status in Status if status != Status.COMPLETED])
def test_want_refund_does_nothing_when_nothing_was_paid(status: Status) -> None:
    order = put(place_order(), status)

    assert services.want_refund(order, by="Sam") is False
    assert kinds(order) == ["placed"]


def test_refund_does_nothing_when_none_is_requested(paid: Order) -> None:
    provider = Refunds("re_1")

    assert (refund(paid, provider), provider.keys, status_of(paid)) == (False, [], Status.COMPLETED)


@pytest.mark.proves("orders.tasks.refund_order", "twice", page="orders:detail")
def test_refund_order_is_safe_to_repeat(paid: Order, broker: Broker) -> None:
    services.want_refund(paid, by="Sam")

    with patch.object(payments, "refund", Refunds(SILENCE, "re_1")):
        results = [tasks.refund_order.apply(kwargs={"order_id": paid.pk}).get() for _ in range(2)]

    assert results == [{"refunded": True}, {"refunded": False}]
    assert stock_left(paid) == 10


def test_check_pending_orders_finds_a_refund_whose_message_was_lost(paid: Order, broker: Broker) -> None:
    Order.objects.update(mail_due_at=None)
    services.want_refund(paid, by="Sam")
    tasks.check_pending_orders()
    before = broker.messages()
    Payment.objects.update(refund_due_at=timezone.now())

    tasks.check_pending_orders()

    assert (before, broker.messages()) == ([], [("orders", "orders.tasks.refund_order", {"order_id": paid.pk})])


def test_check_pending_orders_hands_over_a_refund_without_an_answer_for_a_day(
    paid: Order, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    Order.objects.update(mail_due_at=None)
    services.want_refund(paid, by="Sam")
    key = paid.payments.get().refund_key
    two_days_ago = timezone.now() - timedelta(days=2)
    Payment.objects.update(refund_due_at=timezone.now(), refund_wanted_at=two_days_ago)

    for _ in range(2):
        tasks.check_pending_orders()

    assert (broker.messages(), flag_of(paid)[:10]) == ([], "Its refund")
    services.want_refund(paid, by="Sam")
    assert paid.payments.get().refund_key == key


# --- A wrong amount ---


def mismatch() -> payments.Mismatch:
    return payments.Mismatch("The provider charged €1.00 instead of €37.50.", "pi_wrong")


def test_order_is_never_completed_by_a_wrong_amount() -> None:
    order, provider = place_order(), Provider(mismatch())

    for _ in range(3):
        process_with(provider, order)

    payment = order.payments.get()
    assert (status_of(order), len(provider.asked)) == (Status.PROCESSING, 1)
    assert (payment.status, payment.provider_id) == ("mismatched", "pi_wrong")
    assert flag_of(order) == "The provider charged €1.00 instead of €37.50."
    assert kinds(order) == ["placed", "processing", "flagged"]


def test_wrong_amount_is_left_alone_by_the_sweep_and_ends_by_a_refund(broker: Broker) -> None:
    order = place_order(product=make_product(stock=10), quantity=3)
    process(order, outcome=mismatch())
    end_lease(order)
    tasks.check_pending_orders()

    services.want_refund(order, by="Sam")
    refund(order, Refunds("re_1"))

    assert broker.messages() == []
    assert (status_of(order), stock_left(order)) == (Status.REFUNDED, 10)


def test_start_payment_refuses_a_card_that_the_shop_does_not_offer() -> None:
    with pytest.raises(ValueError, match="pm_of_somebody_else"):
        place_order(card="pm_of_somebody_else")


# --- What is too old ---


@pytest.mark.django_db(transaction=True)
def test_old_order_is_handed_to_a_person_once(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    old, young = place_order(), place_order()
    make_old(old)
    end_lease(young)

    for _ in range(3):
        tasks.check_pending_orders()

    queued = {kwargs["order_id"] for _, _, kwargs in broker.messages() if "order_id" in kwargs}
    alerts = [line for line in caplog.records if line.name == "myproject.alerting.alerts"]
    assert (queued, len(alerts)) == ({young.pk}, 1)
    assert old.reference in alerts[0].getMessage()
    assert (status_of(old), kinds(old)) == (Status.PENDING, ["placed", "flagged"])


@pytest.mark.django_db(transaction=True)
def test_old_order_is_flagged_once_when_two_beats_sweep(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    order = place_order()
    make_old(order)

    flagged = at_once(*[services.give_up_old_orders] * 4)

    assert sorted(flagged) == [[], [], [], [order.reference]]
    assert kinds(order) == ["placed", "flagged"]
    assert len([line for line in caplog.records if line.name == "myproject.alerting.alerts"]) == 1


def test_old_order_is_not_taken_along_but_processed_when_staff_asks() -> None:
    old, young = place_order(), place_order()
    make_old(old)

    along = claim_orders(young, limit=50, task_id="one")
    asked = claim_orders(old, limit=50, task_id="two")

    assert (along, asked) == ([young.pk], [old.pk])


def test_old_charge_is_not_asked_again_by_a_message_that_comes_late() -> None:
    order = put(place_order(), Status.PROCESSING)
    make_old(order)
    row = Order.objects.filter(pk=order.pk)

    late = claim_orders(order, limit=50, task_id="late")
    row.mark_requeued("by Sam")
    asked = claim_orders(order, limit=50, task_id="asked")
    tried_again = claim_orders(order, limit=50, task_id="asked")

    assert (late, asked, tried_again) == ([], [order.pk], [order.pk])


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.COMPLETED])
def test_queueing_again_does_not_make_a_key_younger_than_it_is(status: Status) -> None:
    order = put(place_order(), status)
    age = timedelta(days=2) if status == Status.COMPLETED else timedelta(hours=23)
    Order.objects.update(opened_at=timezone.now() - age)
    before = Order.objects.get().opened_at

    requeued = Order.objects.filter(pk=order.pk).mark_requeued("by Sam")

    assert (requeued, Order.objects.get().opened_at) == ({order.pk: order.reference}, before)


def test_order_that_is_paid_again_later_is_young(broker: Broker) -> None:
    order = place_order(card=Card.DECLINED)
    process(order, outcome=DECLINE)
    make_old_closed = timezone.now() - timedelta(days=3)
    Order.objects.update(opened_at=make_old_closed)

    services.pay_again(order, Card.VISA)

    end_lease(order)
    assert list(Order.objects.due().for_machine()) == [order]


def test_flag_is_taken_off_by_staff_and_comes_back_for_another_reason() -> None:
    order = Order.objects.filter(pk=place_order().pk)
    first, again = order.flag("Odd."), order.flag("Odd.")

    settled, for_nothing = order.unflag("by Sam"), order.unflag("by Sam")
    other = order.flag("Odder.")

    assert (len(first), again, settled, for_nothing, len(other)) == (1, [], 1, 0, 1)
    assert kinds(order.get()) == ["placed", "flagged", "settled", "flagged"]


def test_sweep_reads_only_what_is_open_however_many_are_finished() -> None:
    customer = make_user()
    now = timezone.now()
    finished = {"status": Status.COMPLETED, "completed_at": now, "total": 1, "customer": customer}
    Order.objects.bulk_create(
        Order(reference=f"T{number:08}", token=uuid.uuid4(), **finished) for number in range(5_000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE orders_order, orders_payment")

    orders = [Order.objects.due().for_machine(), Order.objects.due().for_person(), Order.objects.flagged()]
    plans = [rows.explain() for rows in orders] + [Payment.objects.due().explain()]

    assert all("order_open" in plan for plan in plans[:2])
    assert not any("Seq Scan on orders_order" in plan for plan in plans)


# --- Starting again ---


def test_restart_starts_a_rejected_order_over(broker: Broker) -> None:
    product = make_product(stock=0)
    order = place_order(product=product)
    process(order)
    product.stock = 5
    product.save(update_fields=["stock"])

    restarted = [services.restart(order, by="Sam") for _ in range(2)]
    process(order)

    assert (restarted, status_of(order), stock_of(product)) == ([True, False], Status.COMPLETED, 4)
    assert kinds(order)[2:] == ["pending", "replayed", "processing", "completed"]


def test_retry_payment_is_a_new_attempt_with_a_new_key(broker: Broker) -> None:
    order = place_order()
    process(order, outcome=DECLINE)

    restarted = [services.retry_payment(order, by="Sam") for _ in range(2)]

    first, second = order.payments.order_by("attempt")
    assert (restarted, first.card, first.key == second.key) == ([True, False], second.card, False)


@pytest.mark.parametrize("status", [status for status in Status if status != Status.REJECTED])
def test_restart_does_nothing_when_the_order_is_not_rejected(status: Status) -> None:
    order = put(place_order(), status)

    assert services.restart(order, by="Sam") is False
    assert kinds(order) == ["placed"]


# --- Cancelling while it is processed ---


@pytest.mark.parametrize("round_number", range(4))
@pytest.mark.django_db(transaction=True)
def test_cancel_and_process_agree_when_they_race(round_number: int) -> None:
    product, provider = make_product(stock=10), Provider(payments.Charged("pi_1"))
    order = place_order(product=product, quantity=3)

    def run() -> bool:
        reserve_and_process([order.pk])
        return True

    with patch.object(payments, "charge_all", provider.charge_all):
        cancelled = at_once(order.mark_cancelled, run)[0]

    ended = (status_of(order), stock_of(product), len(provider.asked))
    assert ended == ((Status.CANCELLED, 10, 0) if cancelled else (Status.COMPLETED, 7, 1))


# --- The timeline ---


def test_time_line_names_the_worker(broker: Broker) -> None:
    order = place_order()

    with patch.object(payments, "charge_all", Provider(payments.Charged("pi_1")).charge_all):
        tasks.process_order.apply(kwargs={"order_id": order.pk})

    workers = list(order.events.order_by("pk").values_list("worker", flat=True))
    assert (workers[0], all(workers[1:])) == ("", True)


def test_time_line_says_why_the_task_is_tried_again(broker: Broker) -> None:
    order = place_order()
    with patch.object(services, "process_orders", side_effect=[SoftTimeLimitExceeded(), services.Processed([], [])]):
        tasks.process_order.apply(kwargs={"order_id": order.pk})

    event = OrderEvent.objects.get(order=order, kind="interrupted")
    assert "SoftTimeLimitExceeded" in event.detail


@pytest.mark.parametrize("other", ["another", "same"])
def test_time_line_says_nothing_of_a_worker_that_wakes_up_when_all_is_over(other: str, broker: Broker) -> None:
    order = place_order()
    charges = patch.object(payments, "charge_all", Provider(payments.Charged("pi_1")).charge_all)
    works = patch.object(services, "process_orders", services.process_orders)

    def overtaken(claimed: Any) -> services.Processed:
        end_lease(order)
        with charges, works:
            tasks.process_order.apply(kwargs={"order_id": order.pk}, task_id=other)
        tasks.send_order_confirmation(order_id=order.pk)
        raise SoftTimeLimitExceeded

    with patch.object(services, "process_orders", overtaken):
        tasks.process_order.apply(kwargs={"order_id": order.pk}, task_id="same")

    kinds = list(order.events.order_by("pk").values_list("kind", flat=True))
    assert kinds == ["placed", "processing", "completed", "confirmed"]


# --- Pages ---


@pytest.fixture
def office(login: Callable[[User], Client], staff: User) -> Client:
    return login(staff)


def messages_of(answer: Any) -> list[str]:
    return [str(message) for message in get_messages(answer.wsgi_request)]


@pytest.mark.django_db(transaction=True)
def test_refund_page_asks_first_and_then_queues(office: Client, paid: Order, broker: Broker) -> None:
    page = f"{paid.get_absolute_url()}refund/"

    asked = office.get(page).content.decode()
    before = broker.messages()
    seen = {"seen": Order.objects.get(pk=paid.pk).shown}
    office.post(page, seen)
    again = office.post(page, seen)

    assert "This cannot be undone" in asked
    assert (before, broker.messages()) == ([], [("orders", "orders.tasks.refund_order", {"order_id": paid.pk})])
    assert messages_of(again) == ["There is nothing to refund for this order now."]
    assert "Your payment is being refunded" in office.get(paid.get_absolute_url()).content.decode()


@pytest.mark.parametrize("action", ["refund", "replay", "unflag"])
def test_staff_pages_are_forbidden_to_customers(action: str, login: Callable[[User], Client], paid: Order) -> None:
    answer = login(paid.customer).post(f"{paid.get_absolute_url()}{action}/")

    assert (answer.status_code, status_of(paid)) == (403, Status.COMPLETED)


@pytest.mark.django_db(transaction=True)
def test_restart_page_queues_the_order(office: Client, broker: Broker) -> None:
    order = put(place_order(), Status.REJECTED)

    office.post(f"{order.get_absolute_url()}replay/")
    again = office.post(f"{order.get_absolute_url()}replay/")

    assert broker.messages() == [("orders", "orders.tasks.process_order", {"order_id": order.pk})]
    assert messages_of(again) == ["Only a rejected order can be restarted."]


def test_order_page_shows_the_flag_to_staff_only(office: Client, login: Callable[[User], Client], paid: Order) -> None:
    Order.objects.filter(pk=paid.pk).flag("The amounts differ.")
    url = paid.get_absolute_url()

    seen = ["The amounts differ." in who.get(url).content.decode() for who in (office, login(paid.customer))]
    office.post(f"{url}unflag/", {"seen": "The amounts differ."})

    assert seen == [True, False]
    assert flag_of(paid) == ""


def act(office: Client, action: str, *rows: Model, **more: str) -> Any:
    url = reverse("admin:orders_order_changelist")
    return office.post(url, {"action": action, "_selected_action": [row.pk for row in rows], **more})


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("action", "status", "confirm", "task"),
    [
        ("refund", Status.COMPLETED, True, "refund_order"),
        ("restart", Status.REJECTED, False, "process_order"),
        ("retry_payment", Status.PAYMENT_FAILED, True, "process_order"),
    ],
)
def test_admin_changes_many_at_once(
    action: str, status: Status, confirm: bool, task: str, office: Client, broker: Broker
) -> None:
    orders = [place_order() for _ in range(3)]
    process(*orders, outcome=DECLINE if status == Status.PAYMENT_FAILED else payments.Charged("pi_1"))
    orders = [put(order, status) for order in orders]
    if status == Status.REJECTED:
        Payment.objects.update(status="started")

    asked = act(office, action, *orders)
    before = broker.messages() if confirm else []
    if confirm:
        act(office, action, *orders, seen=asked.context["seen"])
    after = broker.messages()

    assert (asked.status_code, before) == (200 if confirm else 302, [])
    assert sorted(kwargs["order_id"] for _, name, kwargs in after if name.endswith(task)) == [o.pk for o in orders]


PAYMENTS: list[dict[str, Any]] = [{"amount": 1}, {"status": "mismatched"}, {"card": Card.SLOW}]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("changed", PAYMENTS)
def test_refund_is_asked_again_where_the_page_said_something_else(
    changed: dict[str, Any], office: Client, paid: Order, broker: Broker
) -> None:
    page, other = f"{paid.get_absolute_url()}refund/", place_order()
    process(other)
    seen = office.get(page).context["order"].shown
    listed = act(office, "refund", paid, other).context["seen"]

    paid.payments.update(**changed)
    asked = [office.post(page, {"seen": seen}), act(office, "refund", paid, other, seen=listed)]
    before, now = broker.messages(), escape(Order.objects.get(pk=paid.pk).shown)
    act(office, "refund", paid, other, seen=asked[1].context["seen"])

    assert before == []
    for text in [answer.content.decode() for answer in asked]:
        assert f"no longer so: “{escape(seen)}”" in text
        assert now in text
    assert sorted(kwargs["order_id"] for _, _, kwargs in broker.messages()) == [paid.pk, other.pk]


@pytest.mark.parametrize("seen", ["", "no JSON", "[]", "{}", '{"1": 2}'])
def test_admin_asks_again_whatever_a_page_has_made_up(seen: str, office: Client, paid: Order) -> None:
    answer = act(office, "refund", paid, seen=seen)

    assert (answer.status_code, paid.payments.get().refund_due_at) == (200, None)


def test_flag_is_taken_off_for_the_reason_that_was_read_only(office: Client) -> None:
    order = place_order()
    Order.objects.filter(pk=order.pk).flag("Odd.")
    Order.objects.filter(pk=order.pk).flag("Worse.")

    office.post(f"{order.get_absolute_url()}unflag/", {"seen": "Odd."})

    assert flag_of(order) == "Worse."


def test_admin_takes_flags_off_for_the_reasons_that_were_read_only(office: Client) -> None:
    order = place_order()
    Order.objects.filter(pk=order.pk).flag("Odd.")
    seen = act(office, "unflag", order).context["seen"]
    Order.objects.filter(pk=order.pk).flag("Worse.")

    asked = act(office, "unflag", order, seen=seen)

    assert f"no longer so: “{order}: Odd.”" in asked.content.decode()
    assert (f"{order}: Worse." in asked.content.decode(), flag_of(order)) == (True, "Worse.")


def test_admin_finds_what_needs_a_person(office: Client) -> None:
    flagged, other = place_order(), place_order()
    Order.objects.filter(pk=flagged.pk).flag("Odd.")
    url = reverse("admin:orders_order_changelist")

    page = office.get(url, {"needs_person": "yes"}).content.decode()
    seen = act(office, "unflag", flagged, other).context["seen"]
    act(office, "unflag", flagged, other, seen=seen)

    assert (flagged.reference in page, other.reference in page, flag_of(flagged)) == (True, False, "")


def test_alert_waits_for_the_commit(caplog: pytest.LogCaptureFixture) -> None:
    order = place_order()

    with transaction.atomic():
        Order.objects.filter(pk=order.pk).flag("Odd.")
        transaction.set_rollback(True)

    assert (flag_of(order), [line for line in caplog.records if line.name == "myproject.alerting.alerts"]) == ("", [])
