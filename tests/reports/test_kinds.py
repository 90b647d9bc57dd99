"""What each kind of report says, against rows made by hand."""

import csv
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from io import BytesIO, StringIO
from typing import Any
from zoneinfo import ZoneInfo

import openpyxl
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from orders.models import Order, Product
from orders.models import Status as OrderStatus
from orders.tasks import import_products
from reports import erasure, services
from reports.kinds import PREVIEWED, Type, by_month, table_of, text_of
from reports.models import FORMATS, Days, Format, Kind, Report
from tests.factories import make_import, make_product, make_report, make_user, place_order, put

pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 1, 15, 12, tzinfo=BERLIN)
NOT_THERE = "is not one of the available choices."
MAY_BE_EMPTY = [kind for kind in Kind if kind not in (Kind.SALES_BY_DAY, Kind.PERSONAL_DATA)]


def sell(at: datetime, product: Product | None = None, quantity: int = 1, customer: User | None = None) -> Order:
    return put(place_order(customer, product, quantity), OrderStatus.COMPLETED, at)


def report_of(kind: Kind, **fields: Any) -> Report:
    if kind == Kind.STATEMENT:
        fields = {"customer": make_user()} | fields
    if kind == Kind.STOCK:
        fields |= {"start": None, "end": None}
    return make_report(kind=kind, **fields)


def rows_of(report: Report) -> list[tuple[Any, ...]]:
    with table_of(report) as table:
        return table.fetch(1000)


def totals_of(report: Report) -> dict[str, Any]:
    with table_of(report) as table:
        return table.totals


# --- Sales ---


def test_sales_by_day_have_every_day_beside_the_days_before() -> None:
    lamp = make_product(price=Decimal("10.00"))
    sell(NOON, lamp, 2)
    sell(NOON, lamp, 1)
    sell(NOON + timedelta(days=1), lamp, 1)
    sell(NOON - timedelta(days=2), lamp, 2)
    sell(NOON - timedelta(days=3), lamp, 50)

    report = report_of(Kind.SALES_BY_DAY, start="2026-01-15", end="2026-01-16")

    assert rows_of(report) == [
        (date(2026, 1, 15), 2, 3, Decimal(30), Decimal(20), Decimal("0.5")),
        (date(2026, 1, 16), 1, 1, Decimal(10), Decimal(0), None),
    ]
    assert totals_of(report) == {"orders": 3, "units": 4, "amount": 40, "before": 20, "change": 1}


def test_sales_by_day_have_a_row_for_a_day_without_sales() -> None:
    rows = rows_of(report_of(Kind.SALES_BY_DAY, start="2026-01-01", end="2026-01-31"))

    assert [row[0].day for row in rows] == list(range(1, 32))
    assert {row[1:] for row in rows} == {(0, 0, 0, 0, None)}


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (datetime(2026, 1, 15, 0, 0, tzinfo=BERLIN), 15),
        (datetime(2026, 1, 15, 23, 59, 59, 999999, tzinfo=BERLIN), 15),
        (datetime(2026, 1, 15, 23, 0, tzinfo=ZoneInfo("UTC")), 16),
        (datetime(2026, 3, 28, 23, 0, tzinfo=ZoneInfo("UTC")), 29),
        # The clocks have changed: the day has ended an hour earlier.
        (datetime(2026, 3, 29, 21, 59, tzinfo=ZoneInfo("UTC")), 29),
        (datetime(2026, 3, 29, 22, 0, tzinfo=ZoneInfo("UTC")), 30),
        (datetime(2025, 10, 26, 22, 59, tzinfo=ZoneInfo("UTC")), 26),
    ],
)
def test_sales_by_day_are_of_days_in_the_shop_s_own_time_zone(at: datetime, day: int) -> None:
    sell(at)

    rows = rows_of(report_of(Kind.SALES_BY_DAY, start=at.date() - timedelta(1), end=at.date() + timedelta(1)))

    assert [row[0].day for row in rows if row[1]] == [day]


def test_comparison_keeps_its_days_when_the_clocks_change() -> None:
    for at in (datetime(2026, 3, 28, 0, 30, tzinfo=BERLIN), datetime(2026, 3, 28, 23, 30, tzinfo=BERLIN)):
        sell(at, make_product(price=Decimal(10)))

    [(_, orders, _, amount, before, _)] = rows_of(report_of(Kind.SALES_BY_DAY, start="2026-03-29", end="2026-03-29"))

    assert (orders, amount, before) == (0, 0, 20)


def test_sales_by_product_put_the_best_first_and_count_an_order_once() -> None:
    lamp = make_product(sku="LAMP", name="Lamp", category="Light", price=Decimal("10.00"))
    rug = make_product(sku="RUG", name="Rug", category="Floor", price=Decimal("100.00"))
    gone = make_product(sku="GONE", name="Gone", category="Floor", price=Decimal("7.00"))
    sell(NOON, lamp, 2)
    sell(NOON, lamp, 3)
    sell(NOON, rug)
    sell(datetime(2025, 12, 31, 12, tzinfo=BERLIN), lamp)
    sell(datetime(2025, 12, 1, 12, tzinfo=BERLIN), gone)

    report = report_of(Kind.SALES_BY_PRODUCT)

    assert rows_of(report) == [
        ("RUG", "Rug", "Floor", 1, 1, Decimal(100), Decimal(0), None),
        ("LAMP", "Lamp", "Light", 2, 5, Decimal(50), Decimal(10), Decimal(4)),
        ("GONE", "Gone", "Floor", 0, 0, Decimal(0), Decimal(7), Decimal(-1)),
    ]
    assert (totals_of(report)["amount"], totals_of(report)["before"]) == (150, 17)


def test_sales_by_category_sum_up_its_products() -> None:
    for price in (10, 20):
        sell(NOON, make_product(category="Light", price=Decimal(price)))
    sell(NOON, make_product(category="Floor", price=Decimal(5)))

    rows = rows_of(report_of(Kind.SALES_BY_CATEGORY))

    assert rows == [("Light", 2, 2, 30, 0, None), ("Floor", 1, 1, 5, 0, None)]


def test_sales_by_category_do_not_sum_up_orders_that_stand_in_more_than_one() -> None:
    sell(NOON)

    assert "orders" not in totals_of(report_of(Kind.SALES_BY_CATEGORY))


def test_sales_by_customer_tell_who_bought_how_much() -> None:
    alice, bob = make_user(name="Alice", email="a@example.com"), make_user(name="", email="b@example.com")
    lamp = make_product(price=Decimal(10))
    sell(NOON, lamp, 1, alice)
    sell(NOON, lamp, 3, bob)

    rows = rows_of(report_of(Kind.SALES_BY_CUSTOMER))

    assert rows == [("", "b@example.com", 1, 3, 30, 0, None), ("Alice", "a@example.com", 1, 1, 10, 0, None)]


def test_chart_of_customers_has_a_bar_for_each_also_when_they_have_one_name() -> None:
    lamp = make_product(price=Decimal("10.00"))
    for quantity in (1, 2):
        sell(NOON, lamp, quantity, make_user(name="Alice"))

    with table_of(report_of(Kind.SALES_BY_CUSTOMER)) as table:
        drawn = str(table.drawn)

    assert ["Alice: €20.00" in drawn, "Alice: €10.00" in drawn, "Alice: €30.00" in drawn] == [True, True, False]


@pytest.mark.parametrize("status", [status for status in OrderStatus if status != OrderStatus.COMPLETED])
@pytest.mark.parametrize("kind", [Kind.SALES_BY_PRODUCT, Kind.SALES_BY_CATEGORY, Kind.SALES_BY_CUSTOMER, Kind.SALES])
def test_sales_leave_out_what_is_not_sold(kind: Kind, status: OrderStatus) -> None:
    put(place_order(), status, NOON)

    assert rows_of(report_of(kind)) == []


# --- Stock and statements ---


def test_stock_is_worth_its_units_at_today_s_price() -> None:
    make_product(sku="B", name="Rug", category="Floor", price=Decimal("2.50"), stock=4)
    make_product(sku="A", name="Lamp", category="Light", price=Decimal("3.00"), stock=0)

    report = report_of(Kind.STOCK)

    assert rows_of(report) == [
        ("B", "Rug", "Floor", Decimal("2.50"), 4, 4, Decimal(10)),
        ("A", "Lamp", "Light", Decimal("3.00"), 0, 0, Decimal(0)),
    ]
    assert totals_of(report) == {"units": 4, "value": 10}


def test_no_column_for_imports_stands_where_nothing_is_edited() -> None:
    make_product()

    columns = {form: len(rows_of(report_of(Kind.STOCK, format=form))[0]) for form in FORMATS[Kind.STOCK]}

    assert columns == {Format.CSV: 7, Format.XLSX: 7, Format.PDF: 6}


def test_statement_says_what_was_paid_and_paid_back_by_one_person() -> None:
    alice, lamp = make_user(), make_product(price=Decimal("10.00"))
    orders: list[Order] = []
    for status in (OrderStatus.COMPLETED, OrderStatus.REFUNDED, OrderStatus.CANCELLED, OrderStatus.PENDING):
        order = put(place_order(alice, lamp), status)
        Order.objects.filter(pk=order.pk).update(created_at=NOON + timedelta(hours=len(orders)))
        orders.append(order)
    place_order(make_user(), lamp)
    put(place_order(alice, lamp), OrderStatus.COMPLETED)

    report = report_of(Kind.STATEMENT, customer=alice, start="2026-01-15", end="2026-01-15")

    assert [row[1:] for row in rows_of(report)] == [
        (orders[0].reference, "Completed", 10, 0, "EUR"),
        (orders[1].reference, "Refunded", 10, 10, "EUR"),
        (orders[2].reference, "Cancelled", 0, 0, "EUR"),
        (orders[3].reference, "Pending", 0, 0, "EUR"),
    ]
    assert totals_of(report) == {"paid": 20, "refunded": 10}


# --- Currencies ---


def in_dollars(order: Order) -> Order:
    Order.objects.filter(pk=order.pk).update(currency="USD")
    return order


@pytest.mark.parametrize(
    "kind", [Kind.SALES_BY_DAY, Kind.SALES_BY_PRODUCT, Kind.SALES_BY_CATEGORY, Kind.SALES_BY_CUSTOMER]
)
def test_sales_in_another_currency_are_left_out(kind: Kind) -> None:
    lamp, alice = make_product(price=Decimal("10.00")), make_user()
    sell(NOON, lamp, 1, alice)
    for at in (NOON, NOON - timedelta(days=1)):
        in_dollars(sell(at, lamp, 3, alice))

    sums = totals_of(report_of(kind, start="2026-01-15", end="2026-01-15"))

    assert (sums["units"], sums["amount"], sums["before"]) == (1, 10, 0)


def test_order_lines_in_another_currency_say_so() -> None:
    in_dollars(sell(NOON))

    assert [row[-1] for row in rows_of(report_of(Kind.SALES))] == ["USD"]


def test_statement_shows_orders_in_another_currency_and_does_not_sum_them_up() -> None:
    alice, lamp = make_user(), make_product(price=Decimal("10.00"))
    for hours, order in enumerate([sell(NOON, lamp, 1, alice), in_dollars(sell(NOON, lamp, 3, alice))]):
        Order.objects.filter(pk=order.pk).update(created_at=NOON + timedelta(hours=hours))

    report = report_of(Kind.STATEMENT, customer=alice)

    assert [row[3:] for row in rows_of(report)] == [(10, 0, "EUR"), (30, 0, "USD")]
    with table_of(report) as table:
        assert table.totals == {"paid": 10, "refunded": 0}
        assert table.total_texts == ["Total", "", "", "10.00", "0.00", "EUR"]


# --- All of them ---


@pytest.mark.parametrize("kind", MAY_BE_EMPTY)
def test_report_without_rows_has_totals_of_nothing(kind: Kind) -> None:
    report = report_of(kind)

    with table_of(report) as table:
        preview = table.preview()

    assert (preview["rows"], preview["chart"]) == ([], "")
    assert not any(table.totals.values())


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind != Kind.PERSONAL_DATA])
def test_report_makes_as_many_queries_for_three_rows_as_for_one(kind: Kind) -> None:
    alice, counts = make_user(), []
    report = report_of(kind, **{"customer": alice} if kind == Kind.STATEMENT else {})
    for rows in (1, 2):
        for _ in range(rows):
            sell(NOON, customer=alice)
        with CaptureQueriesContext(connection) as queries, table_of(report) as table:
            table.preview()
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_preview_has_the_first_rows_the_totals_and_the_chart() -> None:
    for number in range(PREVIEWED + 2):
        make_product(sku=f"{number:02}", category="<b>Light</b>", price=Decimal(1000), stock=2)
    report = report_of(Kind.STOCK)

    services.write_report(report)

    report.refresh_from_db()
    assert report.preview is not None
    assert (len(report.preview["rows"]), report.row_count) == (PREVIEWED, PREVIEWED + 2)
    assert report.preview["rows"][0][3:] == [["1,000.00", True], ["2", True], ["2", True], ["2,000.00", True]]
    assert report.preview["totals"][-1] == ["24,000.00", True]
    assert "&lt;b&gt;Light&lt;/b" in report.preview["chart"]
    assert "<b>" not in report.preview["chart"]


def test_preview_goes_with_the_file() -> None:
    report = report_of(Kind.STOCK)
    services.write_report(report)

    report.mark_expired()

    report.refresh_from_db()
    assert report.preview is None


def test_long_line_is_drawn_by_month() -> None:
    days = [(date(2026, 1, 30) + timedelta(days=n), Decimal(n)) for n in range(4)]

    assert by_month(days) == [("Jan 2026", 1), ("Feb 2026", 5)]


@pytest.mark.parametrize(
    ("type_", "value", "text"),
    [
        (Type.TEXT, "", "–"),
        (Type.MONEY, Decimal("-1234.5"), "-1,234.50"),
        (Type.WHOLE, 1234, "1,234"),
        (Type.CHANGE, Decimal("-0.055"), "−5.5%"),
        (Type.CHANGE, Decimal("0.5"), "+50.0%"),
        (Type.CHANGE, None, "–"),
        (Type.DATE, date(2026, 1, 5), "Mon 5 Jan 2026"),
        (Type.TIME, datetime(2026, 1, 5, 23, 30, tzinfo=ZoneInfo("UTC")), "6 Jan 2026, 00:30"),
    ],
)
def test_value_is_written_for_people(type_: Type, value: Any, text: str) -> None:
    assert text_of(type_, value, "EUR") == text


def test_period_before_is_as_long_and_ends_the_day_before() -> None:
    march = Days(date(2026, 3, 1), date(2026, 3, 31))

    assert march.before == Days(date(2026, 1, 29), date(2026, 2, 28))
    assert march.before.end == march.start


# --- Asking for one ---


@pytest.fixture
def office(login: Login, staff: User) -> Client:
    return login(staff)


def ask(client: Client, **fields: str) -> Any:
    usual = {"kind": "sales_by_day", "format": "xlsx", "start": "2026-01-01", "end": "2026-01-31", "customer": ""}
    return client.post("/reports/", usual | fields)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.PERSONAL_DATA, Kind.STATEMENT)])
def test_staff_may_ask_for_every_kind(kind: Kind, office: Client) -> None:
    answer = ask(office, kind=kind.value, customer="")

    report = Report.objects.get()
    assert (answer["Location"], report.kind, report.customer) == (report.get_absolute_url(), kind, None)
    assert (report.start is None) == (kind == Kind.STOCK)


def test_staff_may_ask_for_a_customer_s_statement(office: Client) -> None:
    alice = make_user(email="alice@example.com")

    ask(office, kind="statement", format="pdf", customer="Alice@Example.com")

    report = Report.objects.get()
    assert (report.customer, report.format, report.is_for_staff) == (alice, Format.PDF, True)


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"kind": "gossip"}, "kind", "Select a valid choice. gossip is not one of the available choices."),
        (
            {"kind": "personal_data"},
            "kind",
            "Select a valid choice. personal_data is not one of the available choices.",
        ),
        ({"kind": "personal_data"}, "kind", f"Select a valid choice. {Kind.PERSONAL_DATA} {NOT_THERE}"),
        ({"kind": ""}, "kind", "This field is required."),
        ({"format": "exe"}, "format", "Select a valid choice. exe is not one of the available choices."),
        ({"format": "json"}, "format", "Select a valid choice. json is not one of the available choices."),
        (
            {"kind": "sales", "format": "pdf"},
            "format",
            "Order lines: this format is not available. Choose one of these: CSV, Excel (XLSX), Parquet.",
        ),
        (
            {"format": "parquet"},
            "format",
            "Sales by day: this format is not available. Choose one of these: Excel (XLSX), CSV, PDF.",
        ),
        ({"kind": "statement"}, "customer", "This field is required."),
        ({"kind": "statement", "customer": "nobody@example.com"}, "customer", "No customer has this address."),
        ({"kind": "statement", "customer": "=cmd|"}, "customer", "Enter a valid email address."),
        ({"end": ""}, "end", "This field is required."),
    ],
)
def test_form_explains_what_cannot_be_made(fields: dict[str, str], field: str, message: str, office: Client) -> None:
    answer = ask(office, **fields)

    assert (answer.status_code, Report.objects.count()) == (200, 0)
    assert answer.context["form"].errors == {field: [message]}


def test_customer_asks_for_their_own_statement_and_reads_it(login: Login, customer: User) -> None:
    client = login(customer)

    answer = client.post(
        "/reports/statement/",
        {"format": "csv", "start": "2026-01-01", "end": "2026-01-31", "kind": "stock", "customer": make_user().email},
    )

    report = Report.objects.get()
    assert (report.kind, report.customer, report.requested_by) == (Kind.STATEMENT, customer, customer)
    services.write_report(report)
    assert client.get(answer["Location"]).status_code == 200
    assert client.get(f"{answer['Location']}download/", follow=True).status_code == 200
    assert list(client.get("/reports/statement/").context["reports"]) == [report]


def test_statement_form_explains_days_that_are_impossible(login: Login, customer: User) -> None:
    tomorrow = timezone.localdate() + timedelta(days=1)

    answer = login(customer).post("/reports/statement/", {"format": "xml", "start": "2026-01-01", "end": tomorrow})

    assert set(answer.context["form"].errors) == {"format", "end"}


def test_statement_is_not_found_by_anybody_else_also_not_by_whom_it_is_about(login: Login, customer: User) -> None:
    asked_by_staff = report_of(Kind.STATEMENT, customer=customer)
    own = make_report(customer, kind=Kind.STATEMENT, customer=customer)
    User.objects.filter(pk=asked_by_staff.requested_by_id).update(is_superuser=True)
    staff = User.objects.get(pk=asked_by_staff.requested_by_id)

    statuses = [
        login(person).get(report.get_absolute_url()).status_code
        for person, report in ((customer, asked_by_staff), (staff, own), (staff, asked_by_staff), (customer, own))
    ]

    assert statuses == [404, 404, 200, 200]


def test_statement_about_another_stays_with_staff(login: Login) -> None:
    report = report_of(Kind.STATEMENT)
    User.objects.filter(pk=report.requested_by_id).update(is_staff=False)

    assert login(report.requested_by).get(report.get_absolute_url()).status_code == 403


def test_statements_about_a_person_go_with_their_account(customer: User) -> None:
    about = report_of(Kind.STATEMENT, customer=customer)
    services.write_report(about)
    other = report_of(Kind.STATEMENT)

    erasure.remove_reports(customer)

    assert list(Report.objects.all()) == [other]


def test_expired_report_is_made_again_as_it_was(office: Client, staff: User) -> None:
    report = make_report(staff, kind=Kind.STOCK, format=Format.PDF, start=None, end=None)
    services.write_report(report)
    report.mark_expired()

    office.post(f"{report.get_absolute_url()}again/")

    again = Report.objects.exclude(pk=report.pk).get()
    assert (again.kind, again.format, again.start, again.status) == (Kind.STOCK, Format.PDF, None, "queued")


def test_report_is_not_made_again_in_a_format_that_is_no_longer_installed(
    office: Client, staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = make_report(staff, kind=Kind.STOCK, format=Format.PDF, start=None, end=None)
    services.write_report(report)
    report.mark_expired()
    monkeypatch.setattr(services, "MISSING", [Format.PDF])

    answer = office.post(f"{report.get_absolute_url()}again/", follow=True)

    assert "PDF is not available here any more. Please choose another format." in answer.content.decode()
    assert Report.objects.count() == 1


# --- Export, edit, import ---


def saved_as_csv(form: Format, file: BytesIO) -> list[list[str]]:
    if form == Format.CSV:
        return [*csv.reader(file.getvalue().decode("utf-8-sig").splitlines())]
    book = openpyxl.load_workbook(file)
    return [["" if cell.value is None else str(cell.value) for cell in row] for row in book.worksheets[0].rows]


@pytest.mark.parametrize("form", [Format.CSV, Format.XLSX])
def test_stock_is_exported_edited_and_imported_as_a_difference(form: Format) -> None:
    kept, edited, raced = (make_product(sku=sku, name="=Lamp", stock=10, description="Stays.") for sku in "ABC")
    file = BytesIO()
    services.write(report_of(Kind.STOCK, format=form), file, lambda rows: None)
    head, *rows, total = saved_as_csv(form, file)
    units = next(place for place, name in enumerate(head) if name.lower() == "units")
    for row in rows[1:]:
        row[units] = "15"
    # Sold between the export and the upload, and after it.
    for product, sold in ((kept, 3), (raced, 1)):
        Product.objects.filter(pk=product.pk).adjust_stock(-sold)
    text = StringIO()
    csv.writer(text).writerows([head, *rows, total])
    upload = make_import(text.getvalue())
    Product.objects.filter(pk=edited.pk).adjust_stock(-2)

    import_products.apply(kwargs={"import_id": str(upload.pk)})

    assert dict(Product.objects.values_list("sku", "stock")) == {"A": 7, "B": 13, "C": 9}
    assert set(Product.objects.values_list("name", "description")) == {("=Lamp", "Stays.")}
    [rejected] = upload.rejected_rows.all()
    assert "the file was made at a stock of 10, and the upload found 9" in rejected.reason
