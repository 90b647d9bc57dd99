"""Reading a CSV file of products as a stream, with the line number of each fault, and without the database."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from typing import IO, Any, NamedTuple, cast

from babel.dates import get_month_names
from django.conf import settings
from django.core.files import File

from myproject import texts

from .models import sku_key
from .money import is_expressible

Binary = IO[bytes] | File
REQUIRED = ["name", "sku", "price", "stock", "category"]
OPTIONAL = ["description", "stock_seen"]
# What the shop's own export of its stock calls a column, in CSV or as heading of a workbook, and what it says besides;
# nothing else is taken as another.
EXPORTED = {"units": "stock", "product": "name", "units when exported": "stock_seen"}
# As the headings of amounts name it.
OF_CURRENCY = re.compile(r" \([a-z]{3}\)$")
IGNORED = ["value"]
DELIMITERS = ",;\t"
# The first line of files from German Excel; Excel itself reads it so.
SEPARATOR_LINE = re.compile('"?sep=([,;\t])"?\\s*')
# What Excel makes of a SKU that looks like a number, a date or a formula; the SKU itself is lost.
SPOILT = re.compile(
    r"\d(?:[.,]\d+)?E[+-]\d+|#(?:[¡¿]?[^\W\d_]+(?:/0)?[!?]|N/[ABD]|NV)"
    r"|\d{1,2}-(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
    r"|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-\d\d",
    re.IGNORECASE,
)
# In these languages, too, it writes dates in words; German has a word of its own for March.
LANGUAGES = ["cs", "da", "de", "el", "es", "fi", "fr", "hu", "it", "nb", "nl", "pl", "pt", "ro", "ru", "sv", "tr", "uk"]
GERMAN_MARCH = "Mrz"
# Characters. The csv module itself refuses a cell of more than 131,072: what is longer has an unclosed quote.
MAX_LINE = 20_000
# With the line breaks in its cells: a file of 50 MB could be one row of ten million cells, which no worker has the
# memory for. A cell that is too long for its column, and for no more than that, still fails its own row only.
MAX_ROW = 500_000
LONGEST = {"sku": 20, "name": 80, "category": 40, "description": 5_000}
HIGHEST_STOCK = 1_000_000
# At most two digits behind the comma, which can then be no separator of thousands.
PRICE = re.compile(r"([0-9]{1,9})(?:[.,]([0-9]{1,2}))?")
MISTAKEN = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook (.xlsx)",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a compressed file (gzip)",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
SAVE_AS_CSV = "Save the table as “CSV UTF-8” and upload that."


class Refused(Exception):
    """The whole file cannot be imported; the message says why."""


class Row(NamedTuple):
    """A product as a line of the file has it; None: the file has no such column.

    `stock_seen` is the stock that the file's author saw, where an export has written it down.
    """

    line: int
    sku: str
    name: str
    category: str
    price: Decimal
    stock: int
    description: str | None
    stock_seen: int | None = None


class Fault(NamedTuple):
    """A line that cannot be imported."""

    line: int
    reason: str
    raw: str


class Invalid(ValueError):
    """A cell is invalid for its column."""


def check(file: Binary) -> int:
    """Read the whole file once without looking into its cells; return how many rows of products it has.

    Raises `Refused` for what concerns the file as a whole, so that nothing of such a file is ever written.
    """
    count = 0
    for count, _ in enumerate(records(file), 1):
        if count > settings.IMPORT_MAX_ROWS:
            raise Refused(f"The file has more than {settings.IMPORT_MAX_ROWS:,} rows. Split it into smaller ones.")
    if not count:
        raise Refused("The file has a header, but no products below it.")
    return count


def read(file: Binary) -> Iterator[Row | Fault]:
    """Yield each row of the file or its fault, in the same order each time."""
    first_seen: dict[str, int] = {}
    for line, names, cells in records(file):
        try:
            row = parse(line, names, cells)
        except Invalid as error:
            yield fault(line, str(error), cells)
            continue
        if (first := first_seen.setdefault(sku_key(row.sku), line)) == line:
            yield row
        else:
            yield fault(line, f"SKU {row.sku} is already in line {first}", cells)


def fault(line: int, reason: str, cells: list[str]) -> Fault:
    return Fault(line, reason[:300], texts.show(" | ".join(cells)[:200]))


def records(file: Binary) -> Iterator[tuple[int, list[str], list[str]]]:
    """Yield line number, column names and cells of each row that is not empty."""
    line = above = 1
    text = lines(file)
    try:
        head = next(text, "")
        delimiter = delimiter_of(head)
        if SEPARATOR_LINE.fullmatch(head):
            head, above = next(text, ""), 2
        names = columns(head, delimiter)
        counted = Counted(text)
        reader = csv.reader(counted, delimiter=delimiter, strict=True)
        # The reader does not count the header. A cell may hold line breaks: a row begins after the last one's end.
        line = above + 1
        for cells in reader:
            if any(map(str.strip, cells)) and not is_total(names, cells):
                yield line, names, cells
            line = reader.line_num + above + 1
            counted.characters = 0
    except TooLong as error:
        where = f"The row that begins in line {line} is longer than {MAX_ROW:,} characters"
        raise Refused(f"{where}. Is a quotation mark missing?") from error
    except csv.Error as error:
        where = f"The row that begins in line {line} is not CSV"
        raise Refused(f"{where} ({error}). Is a quotation mark missing?") from error


class TooLong(Exception):
    """A row goes on and on."""


class Counted:
    """Lines, of which no more than `MAX_ROW` characters are given out until they are said to have been a row."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines = lines
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        self.characters += len(line)
        if self.characters > MAX_ROW:
            raise TooLong
        return line


def lines(file: Binary) -> Iterator[str]:
    """Yield the decoded lines of the file, never more than one of them in memory."""
    text = io.TextIOWrapper(cast(IO[bytes], file), encoding_of(file), newline="")
    number = 0
    try:
        while line := text.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise Refused(f"Line {number} is longer than {MAX_LINE:,} characters. Is this a CSV file?")
            if "\0" in line:
                raise Refused(f"Line {number} holds binary data: this is not a text file. {SAVE_AS_CSV}")
            yield line
    except UnicodeDecodeError as error:
        raise Refused(where_undecodable(file)) from error
    finally:
        # Without this the wrapper would close the file, which is read a second time.
        if not file.closed:
            text.detach()


def encoding_of(file: Binary) -> str:
    """Return the encoding that the file's first bytes name, UTF-8 without a mark; leave the file at its start."""
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    for magic, what in MISTAKEN.items():
        if head.startswith(magic):
            raise Refused(f"This is {what}, not a CSV file. {SAVE_AS_CSV}")
    if not head:
        raise Refused("The file is empty.")
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def where_undecodable(file: Binary) -> str:
    """Return where the first byte is that the file's encoding does not allow."""
    if encoding_of(file) == "utf-16":
        return f"The file begins as UTF-16, but is damaged. {SAVE_AS_CSV}"
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    while chunk := file.read(65_536):
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n")
            byte = f"the byte 0x{error.object[error.start]:02X}"
            return f"Line {line} is not UTF-8: {byte} means nothing there. {SAVE_AS_CSV}"
        line += chunk.count(b"\n")
    return f"The file ends in the middle of a character. {SAVE_AS_CSV}"


def delimiter_of(head: str) -> str:
    said = SEPARATOR_LINE.fullmatch(head)
    return said[1] if said else max(DELIMITERS, key=head.count)


def columns(head: str, delimiter: str) -> list[str]:
    """Return the names of the columns, in any case and order, or refuse a header that lacks or doubles one.

    A column without a name has an empty one: pandas numbers its rows there, and Excel leaves some at the end.
    """
    cells = next(csv.reader([head], delimiter=delimiter, strict=True), [])
    # Files that were put together have a byte-order mark in their midst, and web pages leave spaces that no one sees.
    found = [texts.clean_old(name).lower() for name in cells]
    names = [OF_CURRENCY.sub("", EXPORTED.get(name, name)) for name in found]
    said = f"The first line says: {texts.show(head.strip())[:200] or 'nothing'}"
    if missing := [name for name in REQUIRED if name not in names]:
        raise Refused(f"Missing columns: {', '.join(missing)}. {said}")
    if unknown := [name for name in names if name and name not in REQUIRED + OPTIONAL + IGNORED]:
        raise Refused(f"Unknown columns: {texts.show(', '.join(unknown))[:200]}. {said}")
    if len(set(filter(None, names))) < len(list(filter(None, names))):
        raise Refused(f"A column stands there twice. {said}")
    return names


def is_total(names: list[str], cells: list[str]) -> bool:
    """Whether this is the last line of the stock export, which sums up the others."""
    row = dict(zip(names, cells, strict=False))
    return "value" in row and row["sku"] == "Total" and not row["name"] and not row["price"]


def parse(line: int, names: list[str], cells: list[str]) -> Row:
    """Raises `Invalid` with all that is wrong with the row."""
    if len(cells) != len(names):
        raise Invalid(f"{len(cells)} cells instead of {len(names)}; one that holds the separator needs quotation marks")
    values: dict[str, Any] = {"description": None}
    wrong = []
    for name, cell in zip(names, cells, strict=True):
        try:
            if name in PARSERS:
                values[name] = PARSERS[name](name, texts.from_csv_cell(cell.strip()))
            elif name == "":
                parse_nameless(names, cell.strip())
        except Invalid as error:
            wrong.append(str(error))
    if wrong:
        raise Invalid("; ".join(wrong))
    return Row(line, **values)


def parse_nameless(names: list[str], cell: str) -> None:
    # Text there comes from a separator without quotation marks, which has moved the cells behind it.
    if cell and not (names[0] == "" and cell.isdecimal()):
        raise Invalid(f"“{texts.show(cell)[:20]}” stands in a column without a name")


def parse_sku(name: str, cell: str) -> str:
    if SPOILT.fullmatch(cell) or spoilt_elsewhere().fullmatch(cell):
        raise Invalid(f"sku “{cell}” is what a spreadsheet made of it; format that column as text")
    return parse_words(name, cell)


@cache
def spoilt_elsewhere() -> re.Pattern[str]:
    """Return the pattern of a date in another language, as a spreadsheet writes it: `02. Mrz`, `02-mars`, `3月2日`."""
    names = [name for language in LANGUAGES for name in get_month_names("abbreviated", locale=language).values()]
    months = "|".join(sorted({re.escape(name.strip(".")) for name in [*names, GERMAN_MARCH]}))
    return re.compile(rf"\d\d(?:-|\. ?| )(?:{months})\.?|(?:{months})\.?[- ]\d\d|\d{{1,2}}月\d{{1,2}}日")


def parse_words(name: str, cell: str) -> str:
    text = parse_text(name, cell, texts.clean_words)
    if not text:
        raise Invalid(f"{name} is empty")
    return text


def parse_text(name: str, cell: str, clean: Callable[[str], str] = texts.clean_text) -> str:
    try:
        text = clean(cell)
    except texts.Unprintable as error:
        raise Invalid(f"{name} {error}") from error
    if len(text) > LONGEST[name]:
        raise Invalid(f"{name} is longer than {LONGEST[name]:,} characters")
    return text


def parse_price(name: str, cell: str) -> Decimal:
    found = PRICE.fullmatch(cell)
    if cell.startswith("-"):
        raise Invalid("price is negative")
    if not found:
        raise Invalid(f"price “{texts.show(cell)[:20]}” is not an amount such as 12.50")
    price = Decimal(f"{found[1]}.{found[2] or 0}")
    if not price:
        raise Invalid("price is zero")
    if not is_expressible(price, settings.CURRENCY):
        raise Invalid(f"price “{cell[:20]}” has more digits behind the point than {settings.CURRENCY}")
    return price


def parse_stock(name: str, cell: str) -> int:
    if re.fullmatch("-[0-9]+", cell):
        raise Invalid("stock is negative")
    # Floating point, as pandas writes it; more zeros could be thousands.
    cell = re.sub("[.,]00?$", "", cell)
    if not re.fullmatch("[0-9]{1,20}", cell):
        raise Invalid(f"stock “{texts.show(cell)[:20]}” is not a whole number")
    if int(cell) > HIGHEST_STOCK:
        raise Invalid(f"stock is more than {HIGHEST_STOCK:,}")
    return int(cell)


PARSERS: dict[str, Callable[[str, str], Any]] = {
    "sku": parse_sku,
    "name": parse_words,
    "category": parse_words,
    "price": parse_price,
    "stock": parse_stock,
    "stock_seen": parse_stock,
    "description": parse_text,
}
