import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from orders.models import (
    HIGHEST_STOCK,
    MAY_BECOME,
    OPEN,
    Basket,
    BasketLine,
    Card,
    Kind,
    Order,
    OrderEvent,
    OrderItem,
    Payment,
    Product,
    Status,
    new_reference,
)
from tests.factories import claim, claim_orders, end_lease, make_product, make_user, place_order, put, running

pytestmark = pytest.mark.django_db


# --- Moving from status to status ---


@pytest.mark.parametrize("before", Status)
@pytest.mark.parametrize("to", Status)
def test_move_obeys_the_table(before: Status, to: Status) -> None:
    order = put(place_order(), before)
    allowed = before in MAY_BECOME[to]
    times = {"due_at": timezone.now()} if to in OPEN else {}

    with running("task"):
        moved = Order.objects.filter(pk=order.pk).move(to, "Because.", **times)

    order.refresh_from_db()
    assert moved == ([order.pk] if allowed else [])
    assert order.status == (to if allowed else before)
    assert list(order.events.exclude(kind="placed").values_list("kind", "detail", "task_id")) == (
        [(to.value, "Because.", "task")] if allowed else []
    )


def test_move_lets_go_of_the_claim_when_the_order_is_closed() -> None:
    order = place_order()
    claim(order)

    Order.objects.filter(pk=order.pk).move(Status.REJECTED)

    order.refresh_from_db()
    assert (order.claimed_by, order.due_at) == ("", None)


def test_move_says_no_when_the_order_was_moved_before() -> None:
    order = Order.objects.filter(pk=place_order().pk)

    first, second = order.move(Status.CANCELLED), order.move(Status.CANCELLED)

    assert (len(first), second) == (1, [])
    assert OrderEvent.objects.filter(kind=Kind.CANCELLED).count() == 1


def test_table_of_statuses_knows_each_status_and_each_has_its_event() -> None:
    assert set(MAY_BECOME) == set(Status)
    assert {status.value for status in Status} < set(Kind.values)


@pytest.mark.parametrize("status", [Status.PENDING, Status.PAYMENT_FAILED])
def test_cancel_closes_an_order_that_holds_no_stock(status: Status) -> None:
    order = put(place_order(), status)

    cancelled = order.mark_cancelled()

    order.refresh_from_db()
    assert (cancelled, order.status, order.can_cancel) == (True, Status.CANCELLED, False)
    assert order.payments.get().get_status_display() == "Not charged"


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.COMPLETED, Status.REJECTED, Status.REFUNDED])
def test_cancel_does_nothing_when_it_is_too_late(status: Status) -> None:
    order = put(place_order(), status)

    cancelled = order.mark_cancelled()

    order.refresh_from_db()
    assert (cancelled, order.status, order.can_cancel) == (False, status, False)


# --- Claiming ---


def test_claim_takes_a_free_order_for_the_lease() -> None:
    order, start = place_order(), timezone.now()

    claimed = claim_orders(order, limit=1, task_id="one")

    order.refresh_from_db()
    assert (claimed, order.claimed_by.split("/")[0]) == ([order.pk], "one")
    assert order.due_at is not None
    assert start + settings.ORDER_LEASE <= order.due_at <= timezone.now() + settings.ORDER_LEASE


def test_claim_takes_nothing_when_another_holds_the_order() -> None:
    order = place_order()
    claim_orders(order, limit=1, task_id="one")

    claimed = claim_orders(order, limit=1, task_id="two")

    order.refresh_from_db()
    assert (claimed, order.claimed_by.split("/")[0]) == ([], "one")


def test_claim_takes_the_order_when_the_lease_is_over() -> None:
    order = place_order()
    claim_orders(order, limit=1, task_id="one")
    end_lease(order)

    claimed = claim_orders(order, limit=1, task_id="two")

    assert claimed == [order.pk]


def test_claim_takes_the_order_again_when_the_same_task_is_tried_again() -> None:
    order = place_order()
    claim_orders(order, limit=1, task_id="one")

    claimed = claim_orders(order, limit=1, task_id="one")

    assert claimed == [order.pk]


def test_claim_takes_others_that_wait_up_to_its_limit() -> None:
    orders = [place_order() for _ in range(4)]

    claimed = claim_orders(orders[2], limit=3, task_id="one")

    assert claimed == [orders[2].pk, orders[0].pk, orders[1].pk]


def test_claim_takes_others_when_its_own_order_is_taken() -> None:
    taken, waiting = place_order(), place_order()
    claim_orders(taken, limit=1, task_id="one")

    claimed = claim_orders(taken, limit=2, task_id="two")

    assert claimed == [waiting.pk]


@pytest.mark.parametrize("status", [status for status in Status if status not in OPEN])
def test_claim_leaves_an_order_alone_when_it_is_closed(status: Status) -> None:
    order = put(place_order(), status)

    claimed = claim_orders(order, limit=1, task_id="one")

    assert claimed == []


# --- Queries, with a row on each side ---


def test_left_behind_finds_open_orders_whose_time_has_come() -> None:
    late, closed = place_order(), put(place_order(), Status.COMPLETED)
    place_order()
    end_lease(late)

    found = list(Order.objects.due())

    assert found == [late]
    assert closed.due_at is None


def test_mail_due_finds_what_is_owed_and_not_sent() -> None:
    now = timezone.now()
    owed, sent, later, failed = (put(place_order(), Status.COMPLETED) for _ in range(4))
    for order, due_at, sent_at in [
        (owed, now, None),
        (sent, now, now),
        (later, now + timedelta(minutes=1), None),
        (failed, None, None),
    ]:
        Order.objects.filter(pk=order.pk).update(mail_due_at=due_at, mail_sent_at=sent_at)

    found = list(Order.objects.mail_due())

    assert found == [owed]


def test_of_finds_the_orders_of_one_customer() -> None:
    customer = make_user()
    own = place_order(customer)
    place_order()

    found = list(Order.objects.of(customer))

    assert found == [own]


def test_on_sale_leaves_out_what_is_withdrawn() -> None:
    sold = make_product()
    make_product(is_active=False)

    found = list(Product.objects.on_sale())

    assert found == [sold]


def test_stock_passes_the_highest_at_no_door() -> None:
    product = make_product(stock=HIGHEST_STOCK)
    row = Product.objects.filter(pk=product.pk)

    adjusted = row.adjust_stock(1)
    # As a refund does, which must not fail for it.
    Product.objects.add_stock({product.pk: 3_000_000_000})

    assert (adjusted, row.get().stock) == (0, HIGHEST_STOCK)
    with pytest.raises(IntegrityError, match="product_stock_countable"), transaction.atomic():
        row.update(stock=HIGHEST_STOCK + 1)


@pytest.mark.parametrize(("by", "count", "stock"), [(5, 1, 8), (-3, 1, 0), (-4, 0, 3), (0, 1, 3)])
def test_adjust_stock_never_goes_below_zero(by: int, count: int, stock: int) -> None:
    product = make_product(stock=3)

    adjusted = Product.objects.filter(pk=product.pk).adjust_stock(by)

    product.refresh_from_db()
    assert (adjusted, product.stock) == (count, stock)


# --- What must never be false ---


def second_payment(order: Order) -> None:
    Payment.objects.create(order=order, attempt=2, card=Card.VISA, amount=1, currency="EUR")


def same_attempt(order: Order) -> None:
    Payment.objects.create(order=order, attempt=1, card=Card.VISA, amount=1, currency="EUR", status="declined")


def same_product(order: Order) -> None:
    item = order.items.get()
    OrderItem.objects.create(order=order, product=item.product, name="x", price=1, quantity=1)


def line(order: Order, quantity: int = 1) -> BasketLine:
    basket, _ = Basket.objects.get_or_create(person=order.customer)
    return BasketLine.objects.create(basket=basket, product=order.items.get().product, quantity=quantity)


def same_line(order: Order) -> None:
    line(order)
    line(order)


def write_nan(table: str, column: str) -> None:
    """Write what a column of PostgreSQL takes, and Django's fields refuse."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE orders_{table} SET {column} = 'NaN'")


FORBIDDEN: list[tuple[str, Callable[[Order], object]]] = [
    ("product_stock_not_negative", lambda order: Product.objects.update(stock=-1)),
    ("product_stock_countable", lambda order: Product.objects.update(stock=1_000_000_001)),
    ("product_price_positive", lambda order: Product.objects.update(price=0)),
    ("product_price_is_number", lambda order: write_nan("product", "price")),
    ("product_has_slug", lambda order: Product.objects.update(slug="")),
    ("product_has_words", lambda order: Product.objects.update(name=" \u200b")),
    ("product_sku_unique_in_any_case", lambda order: make_product(sku=order.items.get().product.sku.lower())),
    ("picture_status_known", lambda order: Product.objects.update(picture_status="lost")),
    ("picture_due_while_pending", lambda order: Product.objects.update(picture_status="pending")),
    (
        "order_once_per_form",
        lambda order: Order.objects.create(customer=order.customer, token=order.token, total=1, due_at=timezone.now()),
    ),
    ("order_status_known", lambda order: Order.objects.update(status="lost", due_at=None)),
    ("order_total_positive", lambda order: Order.objects.update(total=0)),
    ("order_total_is_number", lambda order: write_nan("order", "total")),
    ("order_due_while_open", lambda order: Order.objects.update(due_at=None)),
    ("order_due_while_open", lambda order: Order.objects.update(status=Status.REJECTED)),
    ("order_completed_has_time", lambda order: Order.objects.update(status=Status.COMPLETED, due_at=None)),
    ("item_quantity_positive", lambda order: OrderItem.objects.update(quantity=0)),
    ("item_price_is_number", lambda order: write_nan("orderitem", "price")),
    ("item_once_per_order", same_product),
    ("payment_attempt_once", same_attempt),
    ("payment_one_alive_per_order", second_payment),
    ("payment_refund_has_key", lambda order: Payment.objects.update(refund_due_at=timezone.now())),
    ("payment_amount_positive", lambda order: Payment.objects.update(amount=0)),
    ("payment_amount_is_number", lambda order: write_nan("payment", "amount")),
    ("payment_amount_expressible", lambda order: Payment.objects.update(amount="12.50", currency="JPY")),
    ("order_total_expressible", lambda order: Order.objects.update(total="12.50", currency="XOF")),
    ("basket_of_one", lambda order: Basket.objects.create()),
    ("basket_line_once_per_product", same_line),
    ("basket_line_quantity_positive", lambda order: line(order, quantity=0)),
]


MODELS = (Product, Order, OrderItem, Payment, Basket, BasketLine)


@pytest.mark.parametrize(("constraint", "break_it"), FORBIDDEN)
def test_database_refuses_what_must_never_be(constraint: str, break_it: Callable[[Order], object]) -> None:
    order = place_order()

    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        break_it(order)


def test_each_constraint_has_its_test() -> None:
    named = {rule.name for model in MODELS for rule in model._meta.constraints}

    tested = {constraint for constraint, _ in FORBIDDEN}

    assert tested == named


# --- Words ---


def test_reference_is_easy_to_read_aloud() -> None:
    references = {new_reference() for _ in range(100)}

    assert len(references) == 100
    assert all(re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}", one) for one in references)


def test_product_gets_a_slug_of_its_name_and_sku() -> None:
    product = make_product(name="Storm Lantern", sku="LIT-1")

    assert product.get_absolute_url() == "/products/storm-lantern-lit-1/"


@pytest.mark.parametrize("sku", ["㎯" * 20, "㎯" * 15, "⒛" * 20, "灯" * 20, "w" * 20])
def test_products_of_any_sku_have_an_address_each(sku: str) -> None:
    first, second = (make_product(name="lamp " * 16, sku=f"{sku[:-1]}{end}") for end in "/\\")

    assert first.slug != second.slug
    assert all(re.fullmatch(r"[-\w]{1,80}", product.slug) for product in (first, second))


def test_total_of_an_item_is_price_times_quantity() -> None:
    item = place_order(product=make_product(price=Decimal("0.10")), quantity=3).items.get()

    assert item.total == Decimal("0.30")


def test_event_detail_is_cut_when_it_is_too_long() -> None:
    order = place_order()

    OrderEvent.objects.record([order.pk], Kind.RETRY, detail="x" * 400)

    assert len(order.events.get(kind=Kind.RETRY).detail) == 300


def test_token_is_a_uuid_of_the_form() -> None:
    assert isinstance(Order.objects.get(pk=place_order().pk).token, uuid.UUID)
