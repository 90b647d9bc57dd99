"""What the dashboard shows, to staff and to a customer."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_celery_results.models import TaskResult

from accounts.models import User
from myproject.alerting.models import Alert
from orders.models import Order, Status
from reports import daily_sales, figures
from reports.models import DailySales, SalesCount
from tests.factories import make_alert, make_pack, make_product, make_report, make_schedule, place_order, put

pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def office(login: Login, staff: User) -> Client:
    return login(staff)


@pytest.fixture
def context(office: Client) -> Callable[[], Any]:
    return lambda: office.get("/dashboard/").context


def sell(ago: timedelta = timedelta(), price: int = 10, name: str = "Lamp", customer: User | None = None) -> Order:
    product = make_product(price=Decimal(price), name=name)
    # Days ago by the shop's calendar: days of 24 hours end on another one when summer time came between.
    return put(place_order(customer, product), Status.COMPLETED, timezone.localtime() - ago)


def refund(order: Order) -> None:
    Order.objects.filter(pk=order.pk).move(Status.REFUNDED)


def text(client: Client) -> str:
    return " ".join(client.get("/dashboard/").content.decode().split())


def chart_of(page: str) -> ElementTree.Element:
    return ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])


# --- The shop's sales ---


def test_today_stands_beside_the_same_weekday_of_last_week(office: Client) -> None:
    with time_machine.travel(NOW, tick=False):
        sell(price=10)
        sell(timedelta(days=7), 35)
        sell(timedelta(days=6), 99)
        daily_sales.update()

        page = text(office)

    assert 'Today, so far</span><strong class="figure">€10.00</strong>' in page
    assert 'Last Saturday, the whole day</span><strong class="figure">€35.00</strong>' in page


@pytest.mark.parametrize("now", ["2026-11-28T22:59Z", "2026-11-28T23:01Z", "2026-04-10T21:59Z", "2026-04-10T22:01Z"])
def test_chart_has_ninety_days_less_refunds(now: str, office: Client, context: Callable[[], Any]) -> None:
    with time_machine.travel(datetime.fromisoformat(now), tick=False):
        sell(timedelta(days=89))
        sell(timedelta(days=90), 500)
        refund(sell(timedelta(days=3), 70))
        sell(timedelta(days=3), 30)
        daily_sales.update()

        rows = context()["sales"].rows
        chart = chart_of(office.get("/dashboard/").content.decode())

    bars = list(chart.iter("{http://www.w3.org/2000/svg}rect"))
    assert (len(bars), len(rows)) == (90, 90)
    assert [row[-1] for row in rows if row[1]] == ["€30.00", "€10.00"]
    assert rows[3][1:] == (2, 2, "€100.00", "€70.00", "€30.00")


def test_page_says_how_fresh_the_numbers_are(office: Client) -> None:
    daily_sales.update()

    page = text(office)

    assert ("Counted <time" in page, "rebuild_daily_sales" in page) == (True, False)


@pytest.mark.parametrize(
    ("ago", "says"), [(None, "Not all sales are counted yet."), (timedelta(minutes=6), "These numbers are old")]
)
def test_page_says_that_counts_are_stale(ago: timedelta | None, says: str, office: Client) -> None:
    SalesCount.objects.create(pk=1, as_of=timezone.now() - ago if ago else None, currency="EUR")

    page = text(office)

    assert says in page
    assert "manage.py rebuild_daily_sales" in page


def test_page_of_a_shop_that_has_sold_nothing(office: Client, context: Callable[[], Any]) -> None:
    assert "Nothing was sold in these days." in text(office)
    assert context()["today"].net == 0


def test_best_sellers_are_what_was_sold_and_kept_in_thirty_days(context: Callable[[], Any]) -> None:
    rug = make_product(name="Rug", price=Decimal(80))
    lamp = make_product(name="Lamp", price=Decimal(10))
    pen = make_product(name="Pen", price=Decimal(1))
    for product, quantity, ago in ((rug, 2, 1), (lamp, 3, 2), (pen, 9, 31)):
        put(place_order(product=product, quantity=quantity), Status.COMPLETED, timezone.now() - timedelta(days=ago))
    refund(put(place_order(product=lamp, quantity=8), Status.COMPLETED))
    daily_sales.update()

    best = context()["best_sellers"]

    assert [(row["name"], row["sold"], row["earned"]) for row in best] == [
        ("Lamp", 3, Decimal("30.00")),
        ("Rug", 2, Decimal("160.00")),
    ]


# --- Orders by state ---


def test_orders_by_state(context: Callable[[], Any]) -> None:
    place_order()
    put(place_order(), Status.PROCESSING)
    sell()
    sell(timedelta(days=31))
    refund(sell())
    for status in (Status.REJECTED, Status.CANCELLED, Status.CANCELLED):
        put(place_order(), status)
    old = put(place_order(), Status.PAYMENT_FAILED)
    Order.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=31))
    Order.objects.filter(status=Status.REJECTED).flag("Look at it.")
    daily_sales.update()

    shown = context()

    assert {state.status: state.orders for state in shown["open_states"]} == {"pending": 1, "processing": 1}
    assert {state.status: state.orders for state in shown["sold_states"]} == {"completed": 1, "refunded": 1}
    assert {state.status: state.orders for state in shown["unsold_states"]} == {
        "rejected": 1,
        "payment_failed": 0,
        "cancelled": 2,
    }
    assert shown["flagged"] == 1


def test_states_are_counted_by_small_indexes() -> None:
    counted = {
        "order_open": Order.objects.open(),
        "order_unsold": Order.objects.unsold_since(timezone.now()),
        "order_flagged": Order.objects.flagged(),
    }
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")

    assert [index for index, rows in counted.items() if index not in rows.values("status").explain()] == []


def test_links_of_the_states_lead_to_these_orders(office: Client) -> None:
    page = text(office)

    for path in ("?status=pending", "?status=payment_failed", ""):
        assert f'href="/back-office/orders/{path}"' in page
        assert office.get(f"/back-office/orders/{path}").status_code == 200


# --- Failures ---


def failed(task: str, ago: timedelta = timedelta(), status: str = "FAILURE") -> None:
    result = TaskResult.objects.create(task_id=f"{task}-{TaskResult.objects.count()}", task_name=task, status=status)
    TaskResult.objects.filter(pk=result.pk).update(date_done=timezone.now() - ago)


def test_failures_of_the_last_day_are_listed_by_task(office: Client, context: Callable[[], Any]) -> None:
    for ago in (1, 5, 25):
        failed("reports.tasks.generate_report", timedelta(hours=ago))
    failed("myproject.tasks.fail")
    failed("myproject.tasks.add", status="SUCCESS")

    rows = [(row["task_name"], row["times"]) for row in context()["failures"]]

    assert rows == [("reports.tasks.generate_report", 2), ("myproject.tasks.fail", 1)]
    link = "/admin/django_celery_results/taskresult/?status__exact=FAILURE&task_name=myproject.tasks.fail"
    assert link.replace("&", "&amp;") in text(office)
    assert office.get(link).status_code == 200


def test_alerts_of_the_last_day_are_listed(office: Client) -> None:
    make_alert(cause="old", subject="An old lamp is out")
    Alert.objects.update(last_at=timezone.now() - timedelta(days=2))
    alert = make_alert(subject="A <b>lamp</b> is out")

    page = text(office)

    assert f'<a href="/admin/myproject/alert/{alert.pk}/change/">' in page
    assert "A &lt;b&gt;lamp&lt;/b&gt; is out" in page
    assert "An old lamp" not in page


def test_latest_reports_are_those_of_the_list(office: Client, staff: User, context: Callable[[], Any]) -> None:
    own, shared = make_report(staff), make_report(schedule=make_schedule(staff))
    shared.readers.add(staff)
    make_report()
    make_pack(staff)

    assert list(context()["reports"]) == [shared, own] == list(office.get("/reports/").context["page"])


def test_page_says_that_nothing_has_failed(office: Client) -> None:
    assert "None. All that began has ended well" in text(office)


# --- A customer ---


def test_customer_sees_their_own_spending_per_month(login: Login, customer: User) -> None:
    with time_machine.travel(NOW, tick=False):
        sell(price=10, customer=customer)
        sell(timedelta(days=30), 25, customer=customer)
        sell(timedelta(days=400), 40, customer=customer)
        refund(sell(price=99, customer=customer))
        sell(price=500)
        Order.objects.filter(pk=sell(price=70, customer=customer).pk).update(currency="USD")

        spending = login(customer).get("/dashboard/").context["spending"]

    assert spending.total == Decimal("75.00")
    assert spending.chart.rows[:3] == [
        ("November 2026", "€10.00"),
        ("October 2026", "€25.00"),
        ("September 2026", "€0.00"),
    ]
    assert len(spending.chart.rows) == 12


def test_customer_who_has_bought_nothing_sees_no_chart(login: Login, customer: User) -> None:
    answer = login(customer).get("/dashboard/")

    assert answer.context["spending"].total == 0
    assert "<svg" not in answer.content.decode()


def test_customer_sees_nothing_of_the_shop_s_numbers(login: Login, customer: User) -> None:
    page = text(login(customer))

    assert not [word for word in ("Best sellers", "Behind the counter", "/admin/", "dashboard/queues") if word in page]


@pytest.mark.parametrize(
    ("today", "first"), [(date(2026, 11, 30), date(2025, 12, 1)), (date(2026, 1, 1), date(2025, 2, 1))]
)
def test_last_months_are_twelve(today: date, first: date) -> None:
    months = figures.last_months(today)

    assert (months[0], months[-1], len(months)) == (first, today.replace(day=1), 12)


# --- However much there is ---


def test_page_makes_as_many_queries_for_many_sales_as_for_one(office: Client, staff: User) -> None:
    counts = []
    for rows in (1, 3):
        for ago in range(rows):
            sell(timedelta(days=ago), customer=staff)
            failed(f"task{rows}{ago}")
            make_alert(cause=f"{rows}{ago}")
        daily_sales.update()
        with CaptureQueriesContext(connection) as queries:
            office.get("/dashboard/")
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_page_reads_no_order_that_is_finished_and_somebody_else_s(office: Client) -> None:
    """Of the large tables it reads what a partial index or one's own orders bound, never the items."""
    sell()
    daily_sales.update()

    with CaptureQueriesContext(connection) as queries:
        office.get("/dashboard/")

    # The latest events, by their primary key.
    feed = 'ORDER BY "orders_orderevent"."id" DESC LIMIT 8'
    large = [query["sql"] for query in queries if "orders_order" in query["sql"] and not query["sql"].endswith(feed)]
    bounds = ('"customer_id" =', "'pending', 'processing'", "\"status\" IN ('rejected'", '"flagged_at" IS NOT NULL')
    assert [sql for sql in large if not any(bound in sql for bound in bounds)] == []
    assert not [sql for sql in large if "orders_orderitem" in sql or "orders_orderevent" in sql]
    assert DailySales.objects.exists()
