"""Reading a CSV file of products: in a stream, with the line that each fault stands in. Knows no database."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import IO, Any, NamedTuple, cast

from django.conf import settings
from django.core.files import File

from .money import is_expressible

Binary = IO[bytes] | File
REQUIRED = ["name", "sku", "price", "stock", "category"]
OPTIONAL = ["description"]
DELIMITERS = ",;\t"
# Characters. The csv module itself refuses a cell of more than 131,072: what is longer has an unclosed quote.
LONGEST_LINE = 20_000
LONGEST = {"sku": 20, "name": 80, "category": 40, "description": 5_000}
HIGHEST_STOCK = 1_000_000
# At most two digits behind the comma, which can then be no separator of thousands.
PRICE = re.compile(r"([0-9]{1,7})(?:[.,]([0-9]{1,2}))?")
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
    """The whole file cannot be imported, for a reason that a person can read."""


class Row(NamedTuple):
    """A product as a line of the file has it; `description` None: the file has no such column."""

    line: int
    sku: str
    name: str
    category: str
    price: Decimal
    stock: int
    description: str | None


class Fault(NamedTuple):
    """A line that cannot be imported; the others can."""

    line: int
    reason: str
    raw: str


class Invalid(ValueError):
    """One cell is not what its column needs."""


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
    """Yield what each row of the file says, or what is wrong with it, in the same order each time."""
    first_seen: dict[str, int] = {}
    for line, names, cells in records(file):
        try:
            row = parse(line, names, cells)
        except Invalid as error:
            yield fault(line, str(error), cells)
            continue
        if (first := first_seen.setdefault(row.sku, line)) == line:
            yield row
        else:
            yield fault(line, f"SKU {row.sku} stands in line {first} already", cells)


def fault(line: int, reason: str, cells: list[str]) -> Fault:
    return Fault(line, reason[:300], printable(" | ".join(cells))[:200])


def records(file: Binary) -> Iterator[tuple[int, list[str], list[str]]]:
    """Yield line number, column names and cells of each row that is not empty."""
    line = 1
    text = lines(file)
    try:
        head = next(text, "")
        names = columns(head)
        reader = csv.reader(text, delimiter=delimiter_of(head), strict=True)
        # The reader does not count the header. A cell may hold line breaks: a row begins after the last one's end.
        line = 2
        for cells in reader:
            if any(map(str.strip, cells)):
                yield line, names, cells
            line = reader.line_num + 2
    except csv.Error as error:
        where = f"The row that begins in line {line} is not CSV"
        raise Refused(f"{where} ({error}). Is a quotation mark missing?") from error


def lines(file: Binary) -> Iterator[str]:
    """Yield the decoded lines of the file, never more than one of them in memory."""
    text = io.TextIOWrapper(cast(IO[bytes], file), encoding_of(file), newline="")
    number = 0
    try:
        while line := text.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise Refused(f"Line {number} is longer than {LONGEST_LINE:,} characters. Is this a CSV file?")
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
    """Say where the first byte stands that is not in the file's encoding."""
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
    return max(DELIMITERS, key=head.count)


def columns(head: str) -> list[str]:
    """Return the names of the columns, in any case and order, or refuse a header that lacks or doubles one."""
    names = [name.strip().lower() for name in next(csv.reader([head], delimiter=delimiter_of(head), strict=True), [])]
    said = f"The first line says: {printable(head.strip())[:200] or 'nothing'}"
    if missing := [name for name in REQUIRED if name not in names]:
        raise Refused(f"Missing columns: {', '.join(missing)}. {said}")
    if unknown := [name for name in names if name not in REQUIRED + OPTIONAL]:
        raise Refused(f"Unknown columns: {printable(', '.join(unknown))[:200] or 'one without a name'}. {said}")
    if len(set(names)) < len(names):
        raise Refused(f"A column stands there twice. {said}")
    return names


def parse(line: int, names: list[str], cells: list[str]) -> Row:
    """Raises `Invalid` with all that is wrong with the row."""
    if len(cells) != len(names):
        raise Invalid(f"{len(cells)} cells instead of {len(names)}; one that holds the separator needs quotation marks")
    values: dict[str, Any] = {"description": None}
    wrong = []
    for name, cell in zip(names, cells, strict=True):
        try:
            values[name] = PARSERS[name](name, cell.strip())
        except Invalid as error:
            wrong.append(str(error))
    if wrong:
        raise Invalid("; ".join(wrong))
    return Row(line, **values)


def parse_words(name: str, cell: str) -> str:
    text = parse_text(name, " ".join(cell.split()))
    if not text:
        raise Invalid(f"{name} is empty")
    if not text.isprintable():
        raise Invalid(f"{name} holds a character that cannot be shown")
    return text


def parse_text(name: str, cell: str) -> str:
    if len(cell) > LONGEST[name]:
        raise Invalid(f"{name} is longer than {LONGEST[name]:,} characters")
    return cell


def parse_price(name: str, cell: str) -> Decimal:
    found = PRICE.fullmatch(cell)
    if cell.startswith("-"):
        raise Invalid("price is negative")
    if not found:
        raise Invalid(f"price “{printable(cell)[:20]}” is not an amount such as 12.50")
    price = Decimal(f"{found[1]}.{found[2] or 0}")
    if not price:
        raise Invalid("price is zero")
    if not is_expressible(price, settings.CURRENCY):
        raise Invalid(f"price “{cell[:20]}” has more digits behind the point than {settings.CURRENCY}")
    return price


def parse_stock(name: str, cell: str) -> int:
    if re.fullmatch("-[0-9]+", cell):
        raise Invalid("stock is negative")
    if not re.fullmatch("[0-9]{1,20}", cell):
        raise Invalid(f"stock “{printable(cell)[:20]}” is not a whole number")
    if int(cell) > HIGHEST_STOCK:
        raise Invalid(f"stock is more than {HIGHEST_STOCK:,}")
    return int(cell)


PARSERS: dict[str, Callable[[str, str], Any]] = {
    "sku": parse_words,
    "name": parse_words,
    "category": parse_words,
    "price": parse_price,
    "stock": parse_stock,
    "description": parse_text,
}


def printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "·" for letter in text)


def harmless(text: str) -> str:
    """Quote a text that a spreadsheet would take for a formula (OWASP, *CSV Injection*)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
