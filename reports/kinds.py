"""The kinds of report: for each its rows as one query, its columns, its totals and its chart."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from enum import Enum, auto
from itertools import groupby
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Case, Count, DateField, DecimalField, ExpressionWrapper, F, Q, QuerySet, Sum, Value, When
from django.db.models.functions import Coalesce, TruncDate
from django.utils.formats import date_format
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timezone import localtime

from orders import money
from orders.models import Order, OrderItem, Product
from orders.models import Status as OrderStatus

from . import charts
from .models import Days, Format, Kind, Report

Query = tuple[str, tuple[Any, ...]]
# More days than these are drawn as months; more bars than these are too thin to name.
DAYS_DRAWN, BARS_DRAWN = 92, 8
PREVIEWED = 10
# Characters of a label below a bar, so that labels do not overlap.
LABEL = 12
ZERO = Decimal("0.00")
# What people open in a spreadsheet, change, and import.
EDITED = {Format.CSV, Format.XLSX}
MONEY = DecimalField(max_digits=20, decimal_places=2)


class Type(Enum):
    TEXT = auto()
    TIME = auto()
    DATE = auto()
    WHOLE = auto()
    MONEY = auto()
    CHANGE = auto()


NUMBERS = {Type.WHOLE, Type.MONEY, Type.CHANGE}


class Column(NamedTuple):
    """`name` is for programs, `heading` for people; `width` is in characters.

    `is_for_import`: it stands only in files that may be edited and imported again.
    """

    name: str
    heading: str
    type: Type = Type.TEXT
    is_summed: bool = False
    width: int = 12
    is_for_import: bool = False


class Chart(NamedTuple):
    """Bars for the largest values, or a line through the days; `key` distinguishes rows with the same label."""

    title: str
    label: str
    value: str
    is_line: bool = False
    key: str = "1"


class Definition(NamedTuple):
    """`is_snapshot`: the rows are few, and are read once for file, totals and preview."""

    query: Callable[[Report], Query]
    columns: list[Column]
    empty: str
    order: str = ""
    chart: Chart | None = None
    is_snapshot: bool = True


class Table(NamedTuple):
    """The rows of one report, as they stand in the database."""

    columns: list[Column]
    sql: str
    params: tuple[Any, ...]
    empty: str
    totals: dict[str, Any]
    drawn: SafeString | str
    chart_title: str = ""

    @property
    def total_cells(self) -> list[tuple[Column, Any]]:
        """The last row: each column with its total, None where it has none; empty without totals."""
        words = {self.columns[0].name: "Total", "currency": settings.CURRENCY} | self.totals
        return [(column, words.get(column.name)) for column in self.columns if self.totals]

    def preview(self) -> dict[str, Any]:
        """What the report's page shows, as JSON."""
        are_numbers = [column.type in NUMBERS for column in self.columns]
        return {
            "columns": [*zip((column.heading for column in self.columns), are_numbers, strict=True)],
            "rows": [[*zip(texts, are_numbers, strict=True)] for texts in self.texts(PREVIEWED)],
            "totals": [*zip(self.total_texts, are_numbers, strict=False)],
            "chart": str(self.drawn),
            "chart_title": self.chart_title,
            "empty": self.empty,
        }

    def texts(self, limit: int) -> list[list[str]]:
        """The first rows, formatted for people; makes a query."""
        names = [column.name for column in self.columns]
        return [self.text_of_row(dict(zip(names, row, strict=True))) for row in self.fetch(limit)]

    def text_of_row(self, row: Mapping[str, Any]) -> list[str]:
        """Format a row for people, its amounts in the row's currency."""
        currency = row.get("currency") or settings.CURRENCY
        return [text_of(column.type, row[column.name], currency) for column in self.columns]

    @property
    def total_texts(self) -> list[str]:
        return [
            "" if value is None else text_of(column.type, value, settings.CURRENCY)
            for column, value in self.total_cells
        ]

    def fetch(self, limit: int) -> list[tuple[Any, ...]]:
        return fetch(f"SELECT * FROM ({self.sql}) AS rows LIMIT {limit}", self.params)


@contextmanager
def table_of(report: Report) -> Iterator[Table]:
    """Open the report's rows. An order that completes meanwhile is in rows, totals and chart, or in none of them."""
    kind = KINDS[Kind(report.kind)]
    sql, params = kind.query(report)
    if not kind.is_snapshot:
        yield Table(kind.columns, sql, params, kind.empty, {}, "")
        return
    columns = [column for column in kind.columns if report.format in EDITED or not column.is_for_import]
    snapshot, names = f'"report_{report.pk.hex}"', ", ".join(column.name for column in columns)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE {snapshot} AS {sql}", params)
        rows = f"SELECT {names} FROM {snapshot} ORDER BY {kind.order}"
        drawn = draw(kind.chart, snapshot) if kind.chart else ""
        title = kind.chart.title if kind.chart else ""
        yield Table(columns, rows, (), kind.empty, totals(columns, snapshot), drawn, title)
        # A failure rolls it back instead.
        cursor.execute(f"DROP TABLE {snapshot}")


def rows_expected(report: Report) -> int | None:
    """Return PostgreSQL's estimate of the number of rows, for kinds that are too large to count; else None."""
    kind = KINDS.get(Kind(report.kind))
    if kind is None or kind.is_snapshot:
        return None
    sql, params = kind.query(report)
    [[[plan]]] = fetch(f"EXPLAIN (FORMAT JSON) {sql}", params)
    return int(plan["Plan"]["Plan Rows"])


def fetch(sql: str, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall()


def totals(columns: list[Column], snapshot: str) -> dict[str, Any]:
    """Sum up the rows; if they have a currency, only those in the shop's own."""
    names = [column.name for column in columns if column.is_summed]
    own = [settings.CURRENCY] if any(column.name == "currency" for column in columns) else []
    where = "WHERE currency = %s" if own else ""
    [row] = fetch(f"SELECT {', '.join(f'coalesce(sum({name}), 0)' for name in names)} FROM {snapshot} {where}", (*own,))
    sums = dict(zip(names, row, strict=True))
    if before := sums.get("before"):
        sums["change"] = (sums["amount"] - before) / before
    return sums


def draw(chart: Chart, snapshot: str) -> SafeString | str:
    """Return the chart as SVG, empty if there is nothing to draw."""
    cut = "ORDER BY 1" if chart.is_line else f"ORDER BY 2 DESC LIMIT {BARS_DRAWN}"
    points = fetch(f"SELECT {chart.label}, sum({chart.value}) FROM {snapshot} GROUP BY {chart.key}, 1 {cut}")
    if not any(value for _, value in points):
        return ""
    if chart.is_line:
        points = by_month(points) if len(points) > DAYS_DRAWN else [(f"{day:%-d %b}", value) for day, value in points]
    labels, values = [Truncator(label).chars(LABEL) for label, _ in points], [value for _, value in points]
    paint = charts.line if chart.is_line else charts.bars
    return paint(chart.title, labels, values, lambda value: money.text(value, settings.CURRENCY))


def by_month(points: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    months = groupby(points, key=lambda point: f"{point[0]:%b %Y}")
    return [(month, sum(value for _, value in days)) for month, days in months]


def text_of(type_: Type, value: Any, currency: str) -> str:
    """Format a value for the page and the PDF."""
    if value is None or isinstance(value, str):
        return value or "–"
    match type_:
        case Type.TIME:
            return date_format(localtime(value), "j M Y, H:i")
        case Type.DATE:
            return date_format(value, "D j M Y")
        case Type.CHANGE:
            return f"{value:+.1%}".replace("-", "−")
        case Type.MONEY:
            return money.number(value, currency)
    return f"{value:,}"


# --- Sales: completed orders, without refunded ones ---


def sold(days: Days) -> QuerySet[OrderItem]:
    return OrderItem.objects.filter(
        order__status=OrderStatus.COMPLETED,
        order__completed_at__gte=days.start,
        order__completed_at__lt=days.end,
    )


def compared(report: Report, **keys: Any) -> QuerySet[OrderItem, Any]:
    """One row per key, with its sales in the report's days and in as many days before."""
    period = report.days
    now = Q(order__completed_at__gte=period.start)
    amount = ExpressionWrapper(F("price") * F("quantity"), MONEY)
    items = sold(Days(period.before.first, period.last)).filter(order__currency=settings.CURRENCY)
    rows = items.order_by().values(**keys)
    return rows.annotate(
        orders=Count("order", distinct=True, filter=now),
        units=Coalesce(Sum("quantity", filter=now), 0),
        amount=Coalesce(Sum(amount, filter=now), ZERO, output_field=MONEY),
        before=Coalesce(Sum(amount, filter=~now), ZERO, output_field=MONEY),
    )


def with_change(sql: str) -> str:
    return f"SELECT *, (amount - before) / nullif(before, 0) AS change FROM ({sql}) AS compared"


def by_key(**keys: str) -> Callable[[Report], Query]:
    def query(report: Report) -> Query:
        sql, params = compared(report, **{name: F(path) for name, path in keys.items()}).query.sql_with_params()
        return with_change(sql), params

    return query


def by_day(report: Report) -> Query:
    """One row per day, also for days without sales, compared with the same day of the period before."""
    period, day = report.days, TruncDate("order__completed_at")
    earlier = ExpressionWrapper(day + Value(period.length), output_field=DateField())
    shifted = Case(When(order__completed_at__gte=period.start, then=day), default=earlier, output_field=DateField())
    sql, params = compared(report, day=shifted).query.sql_with_params()
    nothing = {"orders": 0, "units": 0, "amount": ZERO, "before": ZERO}
    zeros = ", ".join(f"coalesce({name}, {zero}) AS {name}" for name, zero in nothing.items())
    days = "SELECT day::date FROM generate_series(%s::timestamp, %s::timestamp, '1 day') AS day"
    joined = f"SELECT day, {zeros} FROM ({days}) AS days LEFT JOIN ({sql}) AS sold USING (day)"
    return with_change(joined), (period.first, period.last, *params)


def lines(report: Report) -> Query:
    """One row per item of the orders that were completed in the report's days."""
    rows = sold(report.days).order_by("order__completed_at", "pk")
    return rows.values(
        completed_at=F("order__completed_at"),
        order_reference=F("order__reference"),
        sku=F("product__sku"),
        product_name=F("name"),
        unit_price=F("price"),
        units=F("quantity"),
        amount=F("price") * F("quantity"),
        currency=F("order__currency"),
    ).query.sql_with_params()


# --- Stock, and what one customer has bought ---


def stock(report: Report) -> Query:
    """The available stock at today's prices."""
    units, value = F("stock"), F("price") * F("stock")
    # By `stock_seen` an import of the edited file knows what was edited, and what has been sold meanwhile.
    rows = Product.objects.values("sku", "name", "category", "price", units=units, stock_seen=units, value=value)
    return rows.query.sql_with_params()


def statement(report: Report) -> Query:
    """The customer's orders that were placed in the report's days, and the money that moved for each."""
    placed = Order.objects.of(report.customer_id).placed_between(report.days.start, report.days.end)
    return (
        placed.values("created_at", "reference", "currency")
        .annotate(
            state=Case(*(When(status=status, then=Value(status.label)) for status in OrderStatus)),
            paid=moved(OrderStatus.COMPLETED, OrderStatus.REFUNDED),
            refunded=moved(OrderStatus.REFUNDED),
        )
        .query.sql_with_params()
    )


def moved(*statuses: OrderStatus) -> Case:
    return Case(When(status__in=statuses, then=F("total")), default=ZERO, output_field=MONEY)


# --- The kinds ---

COMPARED = [
    Column("units", "Units", Type.WHOLE, is_summed=True, width=9),
    Column("amount", f"Sales ({settings.CURRENCY})", Type.MONEY, is_summed=True, width=14),
    Column("before", "Period before", Type.MONEY, is_summed=True, width=14),
    Column("change", "Change", Type.CHANGE, width=9),
]
# An order has one day and one customer but several products: only by day or customer do the counts add up.
ORDERS = Column("orders", "Orders", Type.WHOLE, is_summed=True, width=9)
NOTHING_SOLD = "Nothing was sold in these days, nor in as many days before."

KINDS = {
    Kind.SALES_BY_DAY: Definition(
        by_day,
        [Column("day", "Day", Type.DATE, width=16), ORDERS, *COMPARED],
        NOTHING_SOLD,
        "day",
        Chart("Sales by day", "day", "amount", is_line=True),
    ),
    Kind.SALES_BY_PRODUCT: Definition(
        by_key(sku="product__sku", product_name="product__name", category="product__category"),
        [
            Column("sku", "SKU"),
            Column("product_name", "Product", width=32),
            Column("category", "Category", width=16),
            ORDERS._replace(is_summed=False),
            *COMPARED,
        ],
        NOTHING_SOLD,
        "amount DESC, before DESC, sku",
        Chart("The best sellers", "sku", "amount"),
    ),
    Kind.SALES_BY_CATEGORY: Definition(
        by_key(category="product__category"),
        [Column("category", "Category", width=24), ORDERS._replace(is_summed=False), *COMPARED],
        NOTHING_SOLD,
        "amount DESC, before DESC, category",
        Chart("Sales by category", "category", "amount"),
    ),
    Kind.SALES_BY_CUSTOMER: Definition(
        by_key(customer_name="order__customer__name", email="order__customer__email"),
        [Column("customer_name", "Customer", width=26), Column("email", "E-mail", width=30), ORDERS, *COMPARED],
        NOTHING_SOLD,
        "amount DESC, before DESC, email",
        Chart("The best customers", "coalesce(nullif(customer_name, ''), email)", "amount", key="email"),
    ),
    Kind.SALES: Definition(
        lines,
        [
            Column("completed_at", "Completed", Type.TIME, width=19),
            Column("order_reference", "Order"),
            Column("sku", "SKU"),
            Column("product_name", "Product", width=32),
            Column("unit_price", "Price", Type.MONEY),
            Column("units", "Units", Type.WHOLE, width=9),
            Column("amount", "Amount", Type.MONEY, width=14),
            Column("currency", "Currency", width=9),
        ],
        "Nothing was sold in these days.",
        is_snapshot=False,
    ),
    Kind.STOCK: Definition(
        stock,
        [
            Column("sku", "SKU"),
            Column("name", "Product", width=32),
            Column("category", "Category", width=16),
            Column("price", f"Price ({settings.CURRENCY})", Type.MONEY),
            Column("units", "Units", Type.WHOLE, is_summed=True, width=9),
            Column("stock_seen", "Units when exported", Type.WHOLE, width=9, is_for_import=True),
            Column("value", f"Value ({settings.CURRENCY})", Type.MONEY, is_summed=True, width=14),
        ],
        "There are no products.",
        "category, name, sku",
        Chart("Value by category", "category", "value"),
    ),
    Kind.STATEMENT: Definition(
        statement,
        [
            Column("created_at", "Ordered", Type.TIME, width=19),
            Column("reference", "Order"),
            Column("state", "Status", width=16),
            Column("paid", "Paid", Type.MONEY, is_summed=True),
            Column("refunded", "Refunded", Type.MONEY, is_summed=True),
            Column("currency", "Currency", width=9),
        ],
        "Nothing was ordered in these days.",
        "created_at, reference",
    ),
}
