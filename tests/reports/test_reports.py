import csv
import uuid
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from orders.models import Order, OrderItem, Product
from orders.models import Status as OrderStatus
from reports import services, tasks
from reports.formats import to_csv
from reports.models import Report, Status
from tests.broker import Broker
from tests.factories import end, make_product, make_report, make_user, place_order, put

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 1, 15, 12, tzinfo=BERLIN)


def sell(completed_at: datetime = NOON, quantity: int = 1, **fields: Any) -> Order:
    product = make_product(**fields)
    return put(place_order(product=product, quantity=quantity), OrderStatus.COMPLETED, completed_at)


def rows_of(report: Report) -> list[dict[str, str]]:
    services.write_report(report)
    report.refresh_from_db()
    with Path(report.file.path).open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def writing(writer: Callable[..., int]) -> Any:
    """Have that write the CSV."""
    return patch.object(to_csv, "write", writer)


def files() -> list[str]:
    return sorted(path.name for path in (Path(settings.MEDIA_ROOT) / "reports").glob("*"))


@pytest.fixture(autouse=True)
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path


# --- What the file says ---


def test_report_has_one_row_for_each_item_sold() -> None:
    order = sell(quantity=3, name="Lamp", sku="LIT-1", price=Decimal("12.50"))

    rows = rows_of(make_report())

    assert rows == [
        {
            "completed_at": "2026-01-15 12:00:00",
            "order_reference": order.reference,
            "sku": "LIT-1",
            "product_name": "Lamp",
            "unit_price": "12.50",
            "units": "3",
            "amount": "37.50",
            "currency": "EUR",
        }
    ]


def test_report_has_a_header_when_nothing_was_sold() -> None:
    report = make_report()

    rows = rows_of(report)

    assert (rows, report.row_count) == ([], 0)
    assert Path(report.file.path).read_text("utf-8-sig").startswith("completed_at,order_reference,sku,product_name,")


def test_report_counts_its_rows_and_bytes() -> None:
    for _ in range(3):
        sell()
    report = make_report()

    rows_of(report)

    assert (report.row_count, report.size) == (3, Path(report.file.path).stat().st_size)
    assert (report.status, report.due_at) == (Status.READY, None)


def test_report_quotes_what_csv_needs_quoted() -> None:
    name = 'A "big", long lamp; €'
    sell(name=name)

    [row] = rows_of(make_report())

    assert row["product_name"] == name


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_report_makes_formulas_harmless(start: str) -> None:
    sell(name=f'{start}HYPERLINK("x")')

    [row] = rows_of(make_report())

    assert row["product_name"] == f'\'{start}HYPERLINK("x")'


@pytest.mark.parametrize(
    ("completed_at", "is_in"),
    [
        (datetime(2025, 12, 31, 23, 59, 59, tzinfo=BERLIN), False),
        (datetime(2026, 1, 1, 0, 0, tzinfo=BERLIN), True),
        (datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=BERLIN), True),
        (datetime(2026, 2, 1, 0, 0, tzinfo=BERLIN), False),
    ],
)
def test_report_has_the_days_of_the_shop_s_own_time_zone(completed_at: datetime, is_in: bool) -> None:
    sell(completed_at)

    rows = rows_of(make_report(start="2026-01-01", end="2026-01-31"))

    assert len(rows) == int(is_in)


@pytest.mark.parametrize(("hour", "is_in"), [(21, True), (22, False)])
def test_report_has_the_whole_day_when_the_clocks_change(hour: int, is_in: bool) -> None:
    sell(datetime(2026, 3, 29, hour, 30, tzinfo=ZoneInfo("UTC")))

    rows = rows_of(make_report(start="2026-03-29", end="2026-03-29"))

    assert len(rows) == int(is_in)


@pytest.mark.parametrize("status", [status for status in OrderStatus if status != OrderStatus.COMPLETED])
def test_report_leaves_out_what_is_not_sold(status: OrderStatus) -> None:
    put(place_order(), status, NOON)

    assert rows_of(make_report()) == []


def test_report_says_what_things_were_called_when_they_were_sold() -> None:
    sell(name="Lamp", price=Decimal("12.50"))
    Product.objects.update(name="Lantern", price=1)

    [row] = rows_of(make_report())

    assert (row["product_name"], row["unit_price"]) == ("Lamp", "12.50")


def test_report_is_ordered_by_time() -> None:
    for day in (3, 1, 2):
        sell(NOON.replace(day=day), sku=f"DAY-{day}")

    rows = rows_of(make_report())

    assert [row["sku"] for row in rows] == ["DAY-1", "DAY-2", "DAY-3"]
    assert OrderItem.objects.count() == 3


# --- Writing it once ---


def test_write_report_twice_keeps_the_first_file() -> None:
    report = make_report()

    first, second = services.write_report(report), services.write_report(report)

    report.refresh_from_db()
    assert (first, second) == (True, False)
    assert files() == [Path(report.file.path).name]


def test_write_report_leaves_no_file_when_it_fails() -> None:
    report = make_report()

    with writing(Mock(side_effect=OSError("disk full"))), pytest.raises(OSError, match="full"):
        services.write_report(report)

    report.refresh_from_db()
    assert (files(), report.status) == ([], Status.QUEUED)


def test_generate_report_writes_the_report() -> None:
    report = make_report()

    tasks.generate_report.apply(kwargs={"report_id": str(report.pk)}).get()

    report.refresh_from_db()
    assert (report.status, report.attempts, report.claimed_by) == (Status.READY, 1, "")
    assert report.finished_at is not None


@pytest.mark.proves("reports.tasks.generate_report", "twice", page="reports:detail")
def test_generate_report_twice_is_once() -> None:
    report = make_report()

    for _ in range(2):
        tasks.generate_report.apply(kwargs={"report_id": str(report.pk)}).get()

    report.refresh_from_db()
    assert (report.attempts, files()) == (1, [f"{report.pk}-1.csv"])


# --- Claims ---


def test_left_behind_finds_open_reports_whose_time_has_come() -> None:
    late = make_report()
    make_report(due_at=timezone.now() + timedelta(minutes=1))
    end(make_report(), "No.")

    assert list(Report.objects.due()) == [late]


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("report_status_known", {"status": "lost", "due_at": None}),
        ("report_end_not_before_start", {"start": date(2026, 2, 1)}),
        ("report_ready_has_file", {"status": Status.READY, "due_at": None}),
        ("report_due_while_open", {"due_at": None}),
        ("report_due_while_open", {"status": Status.FAILED}),
    ],
)
def test_database_refuses_what_must_never_be(constraint: str, fields: dict[str, Any]) -> None:
    make_report()

    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Report.objects.update(**fields)


# --- The sweep ---


def test_check_unfinished_reports_queues_what_was_left_behind(broker: Broker) -> None:
    late = make_report()
    make_report(due_at=timezone.now() + timedelta(minutes=1))

    tasks.check_unfinished_reports()

    assert broker.messages() == [("reports", "reports.tasks.generate_report", {"report_id": str(late.pk)})]


@pytest.mark.proves("reports.tasks.check_unfinished_reports", "twice")
def test_check_unfinished_reports_twice_writes_one_file(broker: Broker) -> None:
    report = make_report()
    for _ in range(2):
        tasks.check_unfinished_reports()

    for _, _, kwargs in broker.messages():
        tasks.generate_report.apply(kwargs=kwargs).get()

    assert files() == [f"{report.pk}-1.csv"]


# --- Pages ---


@pytest.fixture
def office(login: Login, staff: User) -> Client:
    return login(staff)


def ask(client: Client, start: str, end: str) -> Any:
    return client.post("/reports/", {"kind": "sales", "format": "csv", "start": start, "end": end})


def test_report_form_makes_the_row_and_leads_to_its_page(office: Client, staff: User) -> None:
    answer = ask(office, "2026-01-01", "2026-01-31")

    report = Report.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, report.get_absolute_url())
    assert (report.requested_by, report.start, report.end) == (staff, date(2026, 1, 1), date(2026, 1, 31))
    assert report.status == Status.QUEUED


@pytest.mark.django_db(transaction=True)
def test_report_form_queues_the_report(office: Client, broker: Broker) -> None:
    ask(office, "2026-01-01", "2026-01-01")

    assert broker.messages() == [
        ("reports", "reports.tasks.generate_report", {"report_id": str(Report.objects.get().pk)})
    ]


@pytest.mark.django_db(transaction=True)
def test_report_form_works_when_the_broker_is_away(office: Client, broker: Broker) -> None:
    broker.use("redis://127.0.0.1:1/0")

    answer = ask(office, "2026-01-01", "2026-01-01")

    assert answer["Location"] == Report.objects.get().get_absolute_url()


@pytest.mark.parametrize(
    ("start", "end", "field", "message"),
    [
        ("2026-01-31", "2026-01-01", "end", "The last day is before the first day."),
        ("", "2026-01-01", "start", "This field is required."),
        ("2026-01-01", "2026-02-30", "end", "Enter a valid date."),
        ("0000-00-00", "2026-01-01", "start", "Enter a valid date."),
        ("2026-01-01", "9999-12-31", "end", "The last day is in the future."),
        ("9999-12-31", "9999-12-31", "end", "The last day is in the future."),
        ("0001-01-01", "0001-01-02", "start", "The first day is before 2000."),
        ("2026-01-01", str(timezone.localdate() + timedelta(days=2)), "end", "The last day is in the future."),
        ("1976-01-01", "2026-01-01", "start", "The first day is before 2000."),
        ("2000-01-01", "2026-01-01", "end", "This is more than ten years. Make several reports of shorter periods."),
    ],
)
def test_report_form_explains_when_the_days_are_impossible(
    start: str, end: str, field: str, message: str, office: Client
) -> None:
    answer = ask(office, start, end)

    assert (answer.status_code, Report.objects.count()) == (200, 0)
    assert answer.context["form"].errors == {field: [message]}


@pytest.mark.parametrize("kind", ["sales", "sales_by_day"])
def test_report_ends_when_its_days_are_at_the_edge_of_the_calendar(kind: str, office: Client, staff: User) -> None:
    report = make_report(staff, kind=kind, start="0001-01-01", end="0001-01-02")

    tasks.generate_report.apply(kwargs={"report_id": str(report.pk)})

    report.refresh_from_db()
    assert report.is_open is False
    assert office.get(report.get_absolute_url()).status_code == 200


@pytest.mark.parametrize("path", ["", "status/", "download/"])
def test_report_is_not_found_when_it_is_somebody_else_s(path: str, office: Client) -> None:
    report = make_report()
    services.write_report(report)

    assert office.get(f"{report.get_absolute_url()}{path}").status_code == 404


@pytest.mark.parametrize("path", ["", "status/", "download/"])
def test_report_is_not_found_when_there_is_none(path: str, office: Client) -> None:
    assert office.get(f"/reports/{uuid.uuid4()}/{path}").status_code == 404


def test_report_is_not_downloaded_before_it_is_ready(office: Client, staff: User) -> None:
    report = make_report(staff)

    assert office.get(f"{report.get_absolute_url()}download/").status_code == 404


@pytest.mark.parametrize("path", ["/reports/", "/reports/{pk}/", "/reports/{pk}/status/", "/reports/{pk}/download/"])
def test_reports_are_forbidden_when_one_is_not_staff(path: str, login: Login, customer: User) -> None:
    report = make_report(customer)

    assert login(customer).get(path.format(pk=report.pk)).status_code == 403


@pytest.mark.parametrize("path", ["/reports/{pk}/", "/reports/{pk}/status/", "/reports/{pk}/download/"])
def test_post_is_not_allowed_where_a_report_is_shown(path: str, office: Client, staff: User) -> None:
    assert office.post(path.format(pk=make_report(staff).pk)).status_code == 405


def test_report_page_follows_along_until_it_has_ended(office: Client, staff: User) -> None:
    report = make_report(staff)
    before = office.get(report.get_absolute_url()).content.decode()
    end(report, "The disk is full.")

    after = office.get(report.get_absolute_url()).content.decode()

    assert ('data-every="1"' in before, 'data-every="1"' in after) == (True, False)
    assert "The disk is full." in after


# --- Lists and the dashboard ---


def test_dashboard_shows_one_s_own_orders_and_what_was_spent(login: Login, customer: User) -> None:
    done = put(place_order(customer, make_product(price=Decimal("12.50")), 2), OrderStatus.COMPLETED)
    failed = put(place_order(customer), OrderStatus.PAYMENT_FAILED)
    put(place_order(), OrderStatus.COMPLETED)

    answer = login(customer).get("/dashboard/")

    assert list(answer.context["orders"]) == [failed, done]
    assert "€25.00" in answer.content.decode()
    assert "Latest reports" not in answer.content.decode()


def test_dashboard_shows_staff_their_reports(office: Client, staff: User) -> None:
    report = make_report(staff)
    make_report()

    answer = office.get("/dashboard/")

    assert list(answer.context["reports"]) == [report]


@pytest.mark.parametrize("path", ["/reports/", "/dashboard/"])
def test_page_makes_as_many_queries_for_three_rows_as_for_one(path: str, office: Client, staff: User) -> None:
    counts = []
    for rows in (1, 2):
        for _ in range(rows):
            make_report(staff, start=date(2026, 1, 1 + Report.objects.count()))
            place_order(staff)
        with CaptureQueriesContext(connection) as queries:
            office.get(path)
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_reports_are_listed_by_index(staff: User) -> None:
    with connection.cursor() as cursor:
        # PostgreSQL would read a table of no rows as a whole; without that choice it says what else it can do.
        cursor.execute("SET LOCAL enable_seqscan = off")

    plan = Report.objects.listed_for(staff).explain()

    parts = ["Index Cond: (requested_by_id = ", "Index Cond: (user_id = ", "Seq Scan"]
    assert [part in plan for part in parts] == [True, True, False]


def test_report_list_is_one_s_own(office: Client, staff: User) -> None:
    own = make_report(staff)
    make_report(make_user(is_staff=True))

    assert list(office.get("/reports/").context["page"]) == [own]
