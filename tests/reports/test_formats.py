"""What each format holds, opened again by a reader of its own."""

import codecs
import csv
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from shutil import which
from typing import Any
from unittest.mock import patch
from urllib.request import Request, urlopen
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import openpyxl
import pytest
from django.conf import settings
from django.db.models import Value
from django.test import Client
from pyarrow import parquet
from pypdf import PdfReader

from accounts.models import User
from myproject import texts
from orders.models import Order, OrderItem, Product
from orders.models import Status as OrderStatus
from reports import formats, services, tasks
from reports.formats import copying, to_pdf, to_xlsx
from reports.models import FORMATS, Format, Kind, Report, Status
from tests.factories import make_product, make_report, make_user, place_order, put
from tests.shop import Shop, wait_for

pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
BERLIN = ZoneInfo("Europe/Berlin")
# In the night in which the clocks are set back, when the shop's own time says 02:30 twice.
AT = datetime(2025, 10, 26, 1, 30, 15, 999999, tzinfo=UTC)
YEAR = {"start": "2025-01-01", "end": "2025-12-31"}
FORMULAS = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠1"]
TEXTS = [
    *FORMULAS,
    'A "big", lamp; €',
    "<b>&amp;</b> ]]> 'quoted'",
    " spaces \n and lines ",
    "\\N \\. \\n",
    '#import "x"; $x^2$ *bold* _x_ `raw` @ref <label> // \\',
    "שלום עולם مرحبا \u202edlrow",
    "日本語 😀 👩‍👩‍👧 z̈ \U0001f1e9\U0001f1ea",
    "_x000D_",
    "%s %(name)s {0}",
]
KINDS_AND_FORMATS = [(kind, form) for kind in Kind for form in FORMATS[kind] if kind != Kind.PERSONAL_DATA]


def sell(name: str = "Lamp", quantity: int = 2, at: datetime = AT, customer: User | None = None) -> Order:
    product = make_product(name=name, price=Decimal("1234.50"))
    return put(place_order(customer, product, quantity), OrderStatus.COMPLETED, at)


def written_before(name: str) -> User:
    """A person whose name was stored before names were cleaned."""
    user = make_user()
    User.objects.filter(pk=user.pk).update(name=Value(name))
    return user


def sell_as_before(name: str) -> Order:
    """An order of a product whose name was stored before names were cleaned."""
    order = sell()
    OrderItem.objects.filter(order=order).update(name=Value(name))
    return order


def report_of(kind: Kind, form: Format, **fields: Any) -> Report:
    if kind == Kind.STATEMENT:
        fields = {"customer": make_user()} | fields
    days = {"start": None, "end": None} if kind == Kind.STOCK else YEAR
    return make_report(kind=kind, format=form, **days | fields)


def written(kind: Kind, form: Format, **fields: Any) -> io.BytesIO:
    target = io.BytesIO()
    services.write(report_of(kind, form, **fields), target, lambda rows: None)
    target.seek(0)
    return target


def sheet_of(file: io.BytesIO) -> list[list[Any]]:
    book = openpyxl.load_workbook(file)
    return [[cell.value for cell in row] for row in book.worksheets[0].rows]


def text_of(file: io.BytesIO) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(file).pages)


def fonts_of(file: io.BytesIO) -> list[str]:
    fonts: Any = [page["/Resources"]["/Font"] for page in PdfReader(file).pages]  # type: ignore[index]
    return [str(font.get_object()["/BaseFont"]) for of_page in fonts for font in of_page.get_object().values()]


# --- CSV ---


def test_csv_has_totals_below_the_rows() -> None:
    sell()

    rows = list(csv.reader(io.StringIO(written(Kind.SALES_BY_CATEGORY, Format.CSV).getvalue().decode("utf-8-sig"))))

    assert rows == [
        ["category", "orders", "units", "amount", "before", "change"],
        ["Lighting", "1", "2", "2469.00", "0.00", ""],
        ["Total", "", "2", "2469.00", "0.00", ""],
    ]


def test_csv_rounds_changes() -> None:
    sell(quantity=1)
    sell(quantity=3, at=datetime(2024, 6, 1, tzinfo=BERLIN))

    rows = list(csv.reader(io.StringIO(written(Kind.SALES_BY_CATEGORY, Format.CSV).getvalue().decode("utf-8-sig"))))

    assert [row[-1] for row in rows] == ["change", "-0.6667", "-0.6667"]


@pytest.mark.parametrize("text", FORMULAS)
def test_csv_makes_formulas_harmless(text: str) -> None:
    sell(customer=written_before(text))

    _, row, _ = csv.reader(
        io.StringIO(written(Kind.SALES_BY_CUSTOMER, Format.CSV).getvalue().decode("utf-8-sig"), newline="")
    )

    # Behind a tab or a line end a cell begins for some.
    assert row[0] in (f"'{text}", f"'{text[0]}'{text[1:]}")


@pytest.mark.parametrize("separator", [";", "\t", "\n", "\r", ';"', ";;", 'a "b", c;'])
@pytest.mark.parametrize("formula", FORMULAS)
def test_csv_makes_formulas_harmless_where_another_separator_begins_a_cell(separator: str, formula: str) -> None:
    text = f"x{separator}{formula}"
    sell(customer=written_before(text))

    file = written(Kind.SALES_BY_CUSTOMER, Format.CSV).getvalue().decode("utf-8-sig")

    _, row, _ = csv.reader(io.StringIO(file, newline=""))
    assert row[0].replace("'", "") == text.replace("'", "")
    # A program that ignores the quotes sees a line end.
    lines = file.replace("\r", "\n").split("\n")
    cells = [cell.lstrip('"') for delimiter in ",;\t" for row in csv.reader(lines, delimiter=delimiter) for cell in row]
    assert [cell for cell in cells if cell.startswith(tuple("=+-@＝＋－＠"))] == []


def test_csv_of_many_rows_makes_formulas_harmless_in_each() -> None:
    for number in range(250):
        sell(customer=written_before(f"{number}\n=1" if number % 100 == 50 else str(number)))

    file = written(Kind.SALES_BY_CUSTOMER, Format.CSV).getvalue()

    assert (file.count(b"\n'=1"), file.count(b"\n=1"), file.count(b"'")) == (2, 0, 2)


# --- XLSX ---


@pytest.mark.parametrize("text", TEXTS)
def test_xlsx_keeps_every_text_as_a_text(text: str) -> None:
    sell(customer=written_before(text))

    file = written(Kind.SALES_BY_CUSTOMER, Format.XLSX)

    cell = openpyxl.load_workbook(file).active["A2"]  # type: ignore[index]
    # Numbers of letters, which spreadsheets read, openpyxl reads in shared strings only.
    assert (cell.value.replace("_x005F_", "_"), cell.data_type) == (text, "s")
    assert cell.quotePrefix is (text in FORMULAS)


@pytest.mark.skipif(not which("soffice"), reason="LibreOffice (soffice) is not installed")
def test_xlsx_is_opened_by_libreoffice(tmp_path: Path) -> None:
    for text in TEXTS:
        sell_as_before(text)
    (tmp_path / "lines.xlsx").write_bytes(written(Kind.SALES, Format.XLSX).getvalue())

    # A profile of its own, or a LibreOffice that is open would answer.
    profile = f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}"
    saved = ["soffice", profile, "--headless", "--convert-to", "xlsx", "--outdir", str(tmp_path / "saved")]
    subprocess.run([*saved, str(tmp_path / "lines.xlsx")], check=True, timeout=120)

    [_, *rows] = sheet_of(io.BytesIO((tmp_path / "saved" / "lines.xlsx").read_bytes()))
    assert sorted(row[3] for row in rows) == sorted(TEXTS)
    assert {(row[0], *row[4:]) for row in rows} == {(datetime(2025, 10, 26, 2, 30, 15), 1234.5, 2, 2469, "EUR")}  # noqa: DTZ001


def test_xlsx_leaves_out_what_xml_cannot_say() -> None:
    sell_as_before("a\x01\x0b\x1f\ufffe\uffffz")

    assert sheet_of(written(Kind.SALES, Format.XLSX))[1][3] == "az"


def test_xlsx_has_real_times_and_numbers() -> None:
    order = sell()

    [_, row] = sheet_of(written(Kind.SALES, Format.XLSX))

    sku = Product.objects.get().sku
    assert row == [datetime(2025, 10, 26, 2, 30, 15), order.reference, sku, "Lamp", 1234.5, 2, 2469, "EUR"]  # noqa: DTZ001


def test_xlsx_has_real_dates_and_totals() -> None:
    sell()

    sheet = sheet_of(written(Kind.SALES_BY_DAY, Format.XLSX, start="2025-10-26", end="2025-10-26"))

    assert sheet[1:] == [[datetime(2025, 10, 26), 1, 2, 2469, 0, None], ["Total", 1, 2, 2469, 0, None]]  # noqa: DTZ001


def test_xlsx_looks_like_a_sheet_that_somebody_made() -> None:
    sell()

    book = openpyxl.load_workbook(written(Kind.SALES_BY_PRODUCT, Format.XLSX))

    sheet = book.worksheets[0]
    assert (sheet.title, sheet.freeze_panes) == ("Sales by product", "A2")
    assert (sheet["A1"].font.b, sheet["A2"].font.b, sheet["A3"].font.b) == (True, False, True)
    assert sheet["F2"].number_format == "#,##0.00"
    assert sheet.column_dimensions["B"].width == 32


def test_xlsx_goes_on_in_another_sheet_when_one_is_full() -> None:
    for _ in range(5):
        sell()

    with patch.object(copying, "BLOCK", 1), patch.object(to_xlsx, "BLOCKS_IN_SHEET", 2):
        book = openpyxl.load_workbook(written(Kind.SALES, Format.XLSX))

    assert book.sheetnames == ["Order lines", "Order lines 2", "Order lines 3"]
    assert [sheet.max_row for sheet in book.worksheets] == [3, 3, 2]


def test_xlsx_says_when_there_is_nothing() -> None:
    assert sheet_of(written(Kind.SALES, Format.XLSX))[1][0] == "Nothing was sold in these days."


def test_xlsx_is_well_formed_in_every_part() -> None:
    sell()

    with zipfile.ZipFile(written(Kind.SALES_BY_DAY, Format.XLSX)) as package:
        parts = {name: ElementTree.fromstring(package.read(name)) for name in package.namelist()}

    assert set(parts) >= {"[Content_Types].xml", "_rels/.rels", "xl/workbook.xml", "xl/styles.xml"}


# --- Parquet ---


def test_parquet_has_the_moment_and_exact_money() -> None:
    order = sell_as_before('Lamp, "quoted"\nand long')

    [row] = parquet.read_table(written(Kind.SALES, Format.PARQUET)).to_pylist()

    assert (row["completed_at"].astimezone(UTC), row["order_reference"]) == (AT, order.reference)
    assert (row["unit_price"], row["units"], row["amount"]) == (Decimal("1234.50"), 2, Decimal("2469.00"))
    assert row["product_name"] == 'Lamp, "quoted"\nand long'


@pytest.mark.parametrize("text", [*TEXTS, "NULL", "", "001"])
def test_parquet_keeps_every_text(text: str) -> None:
    sell_as_before(text)

    [row] = parquet.read_table(written(Kind.SALES, Format.PARQUET)).to_pylist()

    assert row["product_name"] == text


def test_parquet_has_its_columns_when_there_is_nothing() -> None:
    table = parquet.read_table(written(Kind.SALES, Format.PARQUET))

    assert (table.num_rows, table.schema.names[0]) == (0, "completed_at")


def test_parquet_is_read_in_groups() -> None:
    for _ in range(3):
        sell()

    with patch.object(copying, "BLOCK", 1), patch("reports.formats.to_parquet.BLOCKS_IN_GROUP", 2):
        file = parquet.ParquetFile(written(Kind.SALES, Format.PARQUET))

    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [2, 1]


# --- PDF ---


@pytest.mark.parametrize("form", [Format.CSV, Format.XLSX, Format.PDF])
def test_letter_that_xml_cannot_say_stops_no_writer(form: Format) -> None:
    """Stored before it was refused: U+000B is how Word writes a line break within a paragraph."""
    sell()
    Product.objects.update(category=Value("Lamps\v\x01\x1band \uffferest"))

    file = written(Kind.SALES_BY_CATEGORY, form)

    if form == Format.XLSX:
        assert sheet_of(file)[1][0] == "Lampsand rest"
    if form == Format.PDF:
        assert "Total" in text_of(file)


@pytest.mark.parametrize("text", ["'=1+41", "''@x", "x;=1+41", "'tis", "=1", "\n-", "\t\t=1", "x;\n\n@y"])
def test_csv_of_reports_has_the_one_rule_of_cells_and_the_mark_for_excel(text: str) -> None:
    sell(customer=written_before(text))

    content = written(Kind.SALES_BY_CUSTOMER, Format.CSV).getvalue()

    assert content.startswith(codecs.BOM_UTF8)
    _, row, _ = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    assert texts.csv_cell(text) in row


def test_pdf_is_a_document_with_title_totals_chart_and_page_numbers() -> None:
    sell()

    file = written(Kind.SALES_BY_PRODUCT, Format.PDF)

    reader, text = PdfReader(file), text_of(file)
    assert reader.metadata is not None
    assert (reader.metadata.title, reader.metadata.author) == ("Sales by product", settings.SITE_NAME)
    for words in (
        "Sales by product",
        "1 January 2025 to 31 December 2025",
        "2,469.00",
        "Total",
        "The best sellers",
        "Page 1 of",
    ):
        assert words in text
    # Its labels are drawn as letters, too.
    assert Product.objects.get().sku in text.partition("Change")[0]


def test_pdf_repeats_the_heading_on_every_page() -> None:
    for number in range(60):
        make_product(name=f"Lamp {number:03}")

    pages = [page.extract_text() for page in PdfReader(written(Kind.STOCK, Format.PDF)).pages]

    assert len(pages) > 1
    assert all("Product" in page and f"Page {n} of {len(pages)}" in page for n, page in enumerate(pages, start=1))


@pytest.mark.parametrize("text", TEXTS)
def test_pdf_takes_every_text_for_a_text(text: str) -> None:
    sell(customer=written_before(text))

    assert "Total" in text_of(written(Kind.SALES_BY_CUSTOMER, Format.PDF))


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "#panic(1) *bold* $x$", "Ångström Škoda Ωμέγα Жук"])
def test_pdf_says_names_as_they_are(text: str) -> None:
    alice = make_user(name=text)

    assert text in " ".join(text_of(written(Kind.STATEMENT, Format.PDF, customer=alice)).split())


@pytest.mark.parametrize("text", ["提灯 山田太郎", "ちょうちん 한국어", "مرحبا", "नमस्ते", "สวัสดี", "🏮 Lamp"])
def test_pdf_has_letters_for_the_scripts_of_names(text: str) -> None:
    sell(customer=make_user(name=text))

    file = written(Kind.SALES_BY_CUSTOMER, Format.PDF)

    assert "No font has" not in text_of(file)
    assert any("Noto" in font for font in fonts_of(file))


def test_pdf_says_which_letters_it_cannot_show() -> None:
    sell(customer=make_user(name="𓀀 and 𐎠"))

    assert "No font has these letters, and each is a box here: U+103A0, U+13000." in text_of(
        written(Kind.SALES_BY_CUSTOMER, Format.PDF)
    )


def test_pdf_breaks_a_word_that_is_wider_than_its_column() -> None:
    sell(customer=make_user(name="W" * 80))
    sell(customer=make_user(name="Casey Customer"))

    text = text_of(written(Kind.SALES_BY_CUSTOMER, Format.PDF))

    assert any("W" * 10 in line for line in text.splitlines())
    assert not any("W" * 40 in line for line in text.splitlines())
    assert "Casey Customer" in text


@pytest.mark.parametrize(
    ("words", "fits"), [("Harbour", True), ("Harbours", False), ("a b c d e f g", True), ("", True)]
)
def test_pdf_looks_closer_at_rows_with_a_word_that_may_not_fit(words: str, fits: bool) -> None:
    limits = to_pdf.too_long([1, 8.2], is_wide=False)

    assert limits == [8, 66]
    assert to_pdf.fits([words, "Harbour Storm Lantern"], limits) is fits


def test_pdf_says_when_there_is_nothing() -> None:
    assert "Nothing was ordered in these days." in text_of(written(Kind.STATEMENT, Format.PDF))


def test_report_fails_with_a_reason_when_it_is_too_long_for_a_pdf() -> None:
    report = report_of(Kind.SALES_BY_DAY, Format.PDF)

    with patch.object(to_pdf, "ROWS", 300):
        tasks.generate_report.apply(kwargs={"report_id": str(report.pk)}).get()

    report.refresh_from_db()
    assert (report.status, report.file.name) == (Status.FAILED, "")
    assert report.error == "A PDF has at most 300 rows. Choose fewer days, or Excel or CSV instead."


# --- All of them ---


@pytest.mark.parametrize(("kind", "form"), KINDS_AND_FORMATS)
def test_report_is_whole_when_there_is_nothing(kind: Kind, form: Format) -> None:
    report = report_of(kind, form)

    tasks.generate_report.apply(kwargs={"report_id": str(report.pk)}).get()

    report.refresh_from_db()
    assert (report.status, report.error, bool(report.size)) == (Status.READY, "", True)
    assert report.filename.endswith(f".{form}")


@pytest.mark.parametrize(("kind", "form"), KINDS_AND_FORMATS)
def test_writer_counts_its_rows_and_tells_of_its_progress(kind: Kind, form: Format) -> None:
    alice = make_user()
    for name in "abc":
        sell(name, customer=alice, at=datetime(2025, 1, 1, 12, tzinfo=BERLIN))
    Order.objects.update(created_at=AT)
    days = {} if kind == Kind.STOCK else {"start": "2025-01-01", "end": "2025-12-31"}
    about = {"customer": alice} if kind == Kind.STATEMENT else {}
    told: list[int] = []

    with patch.object(copying, "BLOCK", 2):
        count, preview = services.write(report_of(kind, form, **days, **about), io.BytesIO(), told.append)

    assert preview is not None
    assert count == {Kind.SALES_BY_DAY: 365, Kind.SALES_BY_CATEGORY: 1, Kind.SALES_BY_CUSTOMER: 1}.get(kind, 3)
    assert (told[-1], told == sorted(told)) == (count, True)


@pytest.mark.parametrize(("kind", "form"), [(Kind.SALES, Format.XLSX), (Kind.STOCK, Format.CSV)])
def test_writer_lets_an_interruption_pass_and_the_database_stays_usable(kind: Kind, form: Format) -> None:
    sell()

    def interrupt(rows: int) -> None:
        raise InterruptedError

    for _ in range(2):
        with pytest.raises(InterruptedError):
            services.write(report_of(kind, form), io.BytesIO(), interrupt)

    assert Report.objects.count() == 2


# --- With the real processes ---


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("kind", "form", "opened"),
    [
        (Kind.SALES_BY_CUSTOMER, Format.XLSX, lambda file: sheet_of(file)[1][0]),
        (Kind.STATEMENT, Format.PDF, lambda file: text_of(file)),
    ],
)
def test_report_is_made_by_a_worker_and_downloaded_from_the_web(
    kind: Kind, form: Format, opened: Callable[[io.BytesIO], str], shop: Shop, login: Login
) -> None:
    alice, staff = make_user(name="=cmd|Alice"), make_user(is_staff=True, is_superuser=True)
    put(place_order(alice), OrderStatus.COMPLETED)
    about = alice.email if kind == Kind.STATEMENT else ""
    client, today = login(staff), f"{datetime.now(BERLIN):%Y-%m-%d}"

    client.post("/reports/", {"kind": kind, "format": form, "start": today, "end": today, "customer": about})
    wait_for(lambda: Report.objects.filter(status=Status.READY).exists(), "the report")

    url = f"{settings.SITE_URL}{Report.objects.get().get_absolute_url()}download/"
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    with urlopen(Request(url, headers={"Cookie": cookie}), timeout=10) as answer:
        assert "=cmd|Alice" in opened(io.BytesIO(answer.read()))


@pytest.mark.parametrize(
    ("kind", "form", "package"), [(Kind.STOCK, Format.PDF, "typst"), (Kind.SALES, Format.PARQUET, "pyarrow")]
)
def test_format_that_is_not_installed_names_its_requirements(
    kind: Kind, form: Format, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"reports.formats.to_{form}", raising=False)

    with pytest.raises(formats.NotInstalled, match=f"needs {package}: pip install -r requirements-{form}.txt"):
        written(kind, form)


WITHOUT = """
import sys
sys.modules["typst"] = sys.modules["pyarrow"] = None
import django
django.setup()
from reports.forms import DaysForm, ReportForm, ScheduleForm
from reports.demo import ASKED
from reports.packs import PARTS
for form in (DaysForm, ReportForm, ScheduleForm):
    print(*(value for value, _ in form.base_fields["format"].choices), form.base_fields["format"].help_text)
print(*sorted({part.format for part in PARTS} | {form for _, form, *_ in ASKED}))
"""


def test_forms_packs_and_demo_do_without_formats_that_are_not_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=settings.BASE_DIR, capture_output=True, text=True, check=True
    )

    days, report, schedule, made = done.stdout.splitlines()
    assert days.split() == ["xlsx", "csv"]
    assert report == schedule
    assert report.startswith("xlsx csv ")
    assert "PDF is not installed here: it needs requirements-pdf.txt." in report
    assert made == "csv xlsx"
