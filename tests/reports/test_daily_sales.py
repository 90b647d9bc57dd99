"""Daily sales against rows made by hand: refunds, late ones, nights, two at once, and a rebuild."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orders.models import Kind, Order, OrderEvent, Product, Status
from orders.tasks import process_order, refund_order
from reports import daily_sales
from reports.models import DailyProductSales, DailySales, SalesCount
from reports.tasks import update_daily_sales
from tests.factories import make_product, place_order, put
from tests.shop import Shop, is_somebody_waiting, wait_for

pytestmark = pytest.mark.django_db

DAY = date(2026, 3, 10)
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
Numbers = tuple[int, int, Decimal, int, int, Decimal]


@pytest.fixture
def lamp() -> Product:
    return make_product(price=Decimal("12.50"))


def sell(product: Product, completed_at: datetime = NOON, quantity: int = 1) -> Order:
    return put(place_order(product=product, quantity=quantity), Status.COMPLETED, completed_at)


def refund(order: Order) -> None:
    Order.objects.filter(pk=order.pk).move(Status.REFUNDED)


def days() -> dict[date, Numbers]:
    return {row[0]: row[1:] for row in DailySales.objects.values_list("day", *daily_sales.SUMS)}


def products() -> dict[tuple[date, int], Numbers]:
    rows = DailyProductSales.objects.values_list("day", "product", *daily_sales.SUMS)
    return {row[:2]: row[2:] for row in rows}


def rebuild(since: date | None = None) -> None:
    list(daily_sales.rebuild(since))


def pretend_counted(ago: timedelta = timedelta(minutes=1)) -> None:
    """Say that all was counted some time ago, so that the next update looks for changes only."""
    SalesCount.objects.update_or_create(pk=1, defaults={"as_of": timezone.now() - ago})


# --- Numbers ---


def test_day_has_what_was_sold_and_what_was_refunded_of_it(lamp: Product) -> None:
    rug = make_product(price=Decimal("80.00"))
    sell(lamp, quantity=2)
    sell(rug)
    refund(sell(lamp, quantity=3))

    rebuild()

    assert days() == {DAY: (3, 6, Decimal("142.50"), 1, 3, Decimal("37.50"))}
    assert products() == {
        (DAY, lamp.pk): (2, 5, Decimal("62.50"), 1, 3, Decimal("37.50")),
        (DAY, rug.pk): (1, 1, Decimal("80.00"), 0, 0, Decimal("0.00")),
    }
    assert DailySales.objects.get().net == Decimal("105.00")


def test_order_of_several_products_is_one_order_of_its_day(lamp: Product) -> None:
    rug = make_product(price=Decimal("80.00"))
    order = sell(lamp)
    order.items.create(product=rug, name=rug.name, price=rug.price, quantity=2)

    rebuild()

    assert days() == {DAY: (1, 3, Decimal("172.50"), 0, 0, Decimal("0.00"))}
    assert [numbers[0] for numbers in products().values()] == [1, 1]


def test_day_counts_more_units_than_one_order_can_have(lamp: Product) -> None:
    for order in (sell(lamp), sell(lamp)):
        order.items.update(price=Decimal("0.01"), quantity=2_000_000_000)

    rebuild()

    assert {numbers[1] for numbers in [*days().values(), *products().values()]} == {4_000_000_000}


@pytest.mark.parametrize("status", [status for status in Status if status not in ("completed", "refunded")])
def test_order_that_was_never_completed_is_no_sale(status: Status, lamp: Product) -> None:
    put(place_order(product=lamp), status, NOON)

    rebuild()

    assert days() == {}


def test_refund_without_a_sale_is_none(lamp: Product) -> None:
    order = place_order(product=lamp)
    Order.objects.filter(pk=order.pk).update(status=Status.REFUNDED, due_at=None, completed_at=None)
    OrderEvent.objects.record([order.pk], Kind.REFUNDED)
    pretend_counted()

    daily_sales.update()
    rebuild()

    assert days() == {}


def test_order_in_another_currency_is_left_out(lamp: Product) -> None:
    order = sell(lamp)
    Order.objects.filter(pk=order.pk).update(currency="USD")

    rebuild()

    assert days() == {}


def test_price_is_that_of_the_sale(lamp: Product) -> None:
    sell(lamp)
    Product.objects.update(price=99)

    rebuild()

    assert days()[DAY][2] == Decimal("12.50")


# --- Days ---


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        # Midnight in Berlin is 23:00 in winter and 22:00 in summer.
        ("2026-01-31T22:59:59.999Z", "2026-01-31"),
        ("2026-01-31T23:00:00Z", "2026-02-01"),
        ("2026-07-31T21:59:59Z", "2026-07-31"),
        ("2026-07-31T22:00:00Z", "2026-08-01"),
        # The nights on which clocks go forward and back.
        ("2026-03-28T22:59:59Z", "2026-03-28"),
        ("2026-03-28T23:00:00Z", "2026-03-29"),
        ("2026-03-29T21:59:59Z", "2026-03-29"),
        ("2026-03-29T22:00:00Z", "2026-03-30"),
        ("2026-10-24T21:59:59Z", "2026-10-24"),
        ("2026-10-24T22:00:00Z", "2026-10-25"),
        ("2026-10-25T00:30:00Z", "2026-10-25"),
        ("2026-10-25T01:30:00Z", "2026-10-25"),
        ("2026-10-25T22:59:59Z", "2026-10-25"),
        ("2026-10-25T23:00:00Z", "2026-10-26"),
    ],
)
def test_day_is_the_shop_s(moment: str, day: str, lamp: Product) -> None:
    sell(lamp, datetime.fromisoformat(moment))

    rebuild()

    assert list(days()) == [date.fromisoformat(day)]


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)])
def test_day_is_as_long_as_its_night_makes_it(day: str, hours: int, lamp: Product) -> None:
    first = daily_sales.midnight(date.fromisoformat(day))
    for hour in range(-2, 28):
        sell(make_product(), first.astimezone(UTC) + timedelta(hours=hour, minutes=30))

    rebuild()

    assert days()[date.fromisoformat(day)][0] == hours
    assert sum(numbers[0] for numbers in days().values()) == 30


# --- Updates ---


def test_update_counts_everything_when_nothing_was_counted_so_far(lamp: Product) -> None:
    sell(lamp)
    sell(lamp, NOON - timedelta(days=400))

    daily_sales.update()

    assert sorted(days()) == [date(2025, 2, 3), DAY]
    assert SalesCount.freshness() is not None


def test_update_counts_what_was_sold_since(lamp: Product) -> None:
    daily_sales.update()
    now = timezone.now()
    sell(lamp, now)

    daily_sales.update()

    assert days() == {timezone.localdate(now): (1, 1, Decimal("12.50"), 0, 0, Decimal("0.00"))}


def test_update_catches_a_late_refund_of_an_old_day(lamp: Product) -> None:
    order = sell(lamp, timezone.now() - timedelta(days=300))
    rebuild()
    refund(order)

    counted = daily_sales.update()

    assert counted == 1
    assert [numbers[3:] for numbers in days().values()] == [(1, 1, Decimal("12.50"))]
    assert [numbers[3:] for numbers in products().values()] == [(1, 1, Decimal("12.50"))]


def test_update_leaves_days_alone_on_which_nothing_changed(lamp: Product) -> None:
    for ago in range(1, 5):
        sell(lamp, timezone.now() - timedelta(days=ago))
    rebuild()

    assert daily_sales.update() == 0


def test_update_sees_what_was_completed_before_the_last_run_and_committed_after_it(lamp: Product) -> None:
    daily_sales.update()
    # Its worker wrote the time down a minute before that run, and committed only now.
    sell(lamp, timezone.now() - timedelta(minutes=1))

    daily_sales.update()

    assert [numbers[0] for numbers in days().values()] == [1]


def test_no_task_that_sells_or_refunds_may_outlast_the_overlap() -> None:
    limits = [task.time_limit or settings.CELERY_TASK_TIME_LIMIT for task in (process_order, refund_order)]

    assert max(limits) < daily_sales.OVERLAP.total_seconds()


def test_update_says_how_fresh_it_is_and_never_goes_back() -> None:
    before = timezone.now()
    daily_sales.update()
    fresh = SalesCount.freshness()
    older = SalesCount.mark_counted(before - timedelta(hours=1))

    assert fresh is not None
    assert before <= fresh <= timezone.now()
    assert (older, SalesCount.freshness()) == (False, fresh)


@pytest.mark.proves("reports.tasks.update_daily_sales", "twice")
def test_update_twice_is_once(lamp: Product) -> None:
    sell(lamp, timezone.now())

    update_daily_sales.apply()
    once = (days(), products())
    update_daily_sales.apply()

    assert (days(), products()) == once


def test_update_does_not_write_what_has_not_changed(lamp: Product) -> None:
    sell(lamp, timezone.now())
    rebuild()
    written = "SELECT ctid, xmin FROM reports_dailysales UNION ALL SELECT ctid, xmin FROM reports_dailyproductsales"

    def rows() -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(written)
            return cursor.fetchall()

    before = rows()
    daily_sales.update()

    assert rows() == before


def test_update_makes_as_many_queries_for_a_hundred_orders_as_for_one(lamp: Product) -> None:
    daily_sales.update()
    counts = []
    for orders in (1, 100):
        for _ in range(orders):
            sell(lamp, timezone.now())
        with CaptureQueriesContext(connection) as queries:
            daily_sales.update()
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_database_refuses_two_counts_of_a_product_on_one_day(lamp: Product) -> None:
    sell(lamp)
    rebuild()
    again = DailyProductSales.objects.get()
    again.pk = None

    with pytest.raises(IntegrityError, match="sales_once_per_day_and_product"), transaction.atomic():
        again.save()


# --- Rebuilding ---


def test_rebuild_gives_what_the_updates_gave(lamp: Product) -> None:
    daily_sales.update()
    rug = make_product(price=Decimal("80.00"))
    now = timezone.now()
    sold = []
    for round_ in range(4):
        sold += [sell(lamp, now - timedelta(minutes=round_)), sell(rug, now - timedelta(minutes=5), 2)]
        if round_:
            refund(sold[round_])
        daily_sales.update()
    by_updates = (days(), products())
    DailySales.objects.all().delete()
    DailyProductSales.objects.all().delete()

    rebuild()

    assert (days(), products()) == by_updates
    assert sum(numbers[3] for numbers in days().values()) == 3


def test_rebuild_mends_numbers_and_removes_days_that_have_no_sales(lamp: Product) -> None:
    order = sell(lamp)
    rebuild()
    DailySales.objects.update(orders=77, revenue=1)
    DailyProductSales.objects.update(units=F("units") + 5)
    gone = {"orders": 1, "units": 1, "revenue": 1, "refunded_orders": 0, "refunded_units": 0, "refunds": 0}
    DailySales.objects.create(day=DAY - timedelta(days=900), **gone)
    DailyProductSales.objects.create(day=DAY - timedelta(days=1), product=lamp, **gone)

    rebuild()

    assert days() == {DAY: (1, 1, Decimal("12.50"), 0, 0, Decimal("0.00"))}
    assert products() == {(DAY, lamp.pk): (1, 1, Decimal("12.50"), 0, 0, Decimal("0.00"))}
    order.refresh_from_db()


def test_rebuild_since_a_day_leaves_what_is_older(lamp: Product) -> None:
    sell(lamp, NOON - timedelta(days=1))
    sell(lamp)

    rebuild(DAY)

    assert list(days()) == [DAY]
    # What is older was never counted, and the next update still does all of it.
    assert SalesCount.freshness() is None


def test_command_prints_its_progress_by_chunks(lamp: Product, capsys: pytest.CaptureFixture[str]) -> None:
    sell(lamp, timezone.now() - timedelta(days=40))
    first = timezone.localdate() - timedelta(days=40)

    call_command("rebuild_daily_sales", since=first)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{first} to {first + timedelta(days=30)} counted"
    assert lines[1] == f"{first + timedelta(days=31)} to {timezone.localdate()} counted"
    assert "41 days" in lines[2]
    assert len(days()) == 1


@pytest.mark.parametrize("since", ["0001-01-01", "1970-01-01"])
def test_command_begins_with_the_first_sale_however_early_the_day(
    since: str, lamp: Product, capsys: pytest.CaptureFixture[str]
) -> None:
    sell(lamp, timezone.now())

    call_command("rebuild_daily_sales", f"--since={since}")

    assert "1 days" in capsys.readouterr().out
    assert SalesCount.freshness() is not None


def test_command_counts_everything_without_a_day(lamp: Product) -> None:
    sell(lamp)

    call_command("rebuild_daily_sales")

    assert list(days()) == [DAY]
    assert SalesCount.freshness() is not None


@pytest.mark.parametrize("since", ["2999-01-01", "yesterday", "2026-02-30", ""])
def test_command_refuses_what_is_no_day_of_the_past(since: str) -> None:
    with pytest.raises(CommandError, match=r"in the future|invalid"):
        call_command("rebuild_daily_sales", f"--since={since}")


# --- Two at once, and the real worker ---


@pytest.fixture
def sold(transactional_db: None) -> Product:
    lamp = make_product(price=Decimal("12.50"))
    for ago in range(3):
        sell(lamp, timezone.now() - timedelta(days=ago))
    return lamp


@pytest.mark.django_db(transaction=True)
def test_two_runs_at_once_do_no_harm(sold: Product) -> None:
    def run(n: int) -> None:
        try:
            rebuild() if n % 2 else daily_sales.update()
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(run, range(16)))

    assert [numbers[:2] for numbers in days().values()] == [(1, 1)] * 3
    assert SalesCount.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_older_count_does_not_replace_a_newer_one(sold: Product) -> None:
    """One that waits for another one counts what was committed meanwhile, not what it saw when it came."""
    today = timezone.localdate()

    def count() -> None:
        try:
            daily_sales.count(today, today)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        with transaction.atomic():
            SalesCount.lock()
            waiting = thread.submit(count)
            wait_for(is_somebody_waiting, "the other count to wait")
            sell(sold, timezone.now())
            daily_sales.count(today, today)
        waiting.result()

    assert days()[today][0] == 2


@pytest.mark.proves("reports.tasks.update_daily_sales", "worker")
def test_worker_keeps_the_daily_sales_up_to_date(shop: Shop) -> None:
    order = sell(make_product(price=Decimal("12.50")), timezone.now())
    wait_for(lambda: [numbers[0] for numbers in days().values()] == [1], "the sale to be counted")

    refund(order)

    wait_for(lambda: [numbers[3] for numbers in days().values()] == [1], "the refund to be counted")


# --- Found by index ---


def test_changed_days_are_found_by_index(lamp: Product) -> None:
    sell(lamp)
    since = timezone.now() - daily_sales.OVERLAP
    with connection.cursor() as cursor, transaction.atomic():
        # PostgreSQL would read a table of one row as a whole; without that choice it says what else it can do.
        cursor.execute("SET LOCAL enable_seqscan = off")
        sales = Order.objects.completed_since(since).values_list("completed_at").explain()
        refunds = OrderEvent.objects.refunds_since(since).values_list("order").explain()

    assert "order_completed_at" in sales
    assert "orderevent_unusual" in refunds
