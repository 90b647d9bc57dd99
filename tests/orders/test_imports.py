"""Reading a CSV file: whatever people upload, without a database."""

import codecs
import io
import tracemalloc
import zipfile
from decimal import Decimal
from typing import Any

import pytest

from orders import imports
from orders.imports import Fault, Refused, Row

HEADER = "name,sku,price,stock,category"


def read(text: str | bytes) -> list[Row | Fault]:
    data = text.encode() if isinstance(text, str) else text
    file = io.BytesIO(data)
    rows = list(imports.read(file))
    assert imports.check(file) == len(rows)
    return rows


def refusal(data: bytes) -> str:
    """Return why the file is refused as a whole, by the first pass already."""
    with pytest.raises(Refused) as refused:
        imports.check(io.BytesIO(data))
    return str(refused.value)


def faults(*lines: str) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in read("\n".join([HEADER, *lines])) if isinstance(row, Fault)]


LAMP = Row(2, "A-1", "Lämp", "Lighting", Decimal("12.50"), 3, None)


@pytest.mark.parametrize(
    "data",
    [
        f"{HEADER}\nLämp,A-1,12.50,3,Lighting\n".encode(),
        f"{HEADER}\r\nLämp,A-1,12.50,3,Lighting\r\n".encode(),
        f"{HEADER}\rLämp,A-1,12.50,3,Lighting".encode(),
        codecs.BOM_UTF8 + f"{HEADER}\nLämp,A-1,12.50,3,Lighting".encode(),
        f"{HEADER}\nLämp,A-1,12.50,3,Lighting".encode("utf-16"),
        b"\xfe\xff" + f"{HEADER}\nLämp,A-1,12.50,3,Lighting".encode("utf-16-be"),
        "Name;SKU;Price;Stock;Category\nLämp;A-1;12,50;3;Lighting\n".encode(),
        "category\tstock\tprice\tsku\tname\nLighting\t3\t12.5\tA-1\tLämp\n".encode(),
        f'"name", {HEADER[5:]}\n"Lämp", A-1 , 12.50 ,003,Lighting'.encode(),
        f"{HEADER}\nLämp,A-1,12.50,3,Lighting\n\n,,,,\n  \n".encode(),
    ],
    ids=["lf", "crlf", "cr", "bom", "utf-16", "utf-16-be", "semicolons", "tabs", "quotes", "empty lines"],
)
def test_file_is_read_as_spreadsheets_write_it(data: bytes) -> None:
    assert read(data) == [LAMP]


@pytest.mark.parametrize(
    "data",
    [
        "sep=;\r\nname;sku;price;stock;category\r\nLämp;A-1;12,50;3;Lighting\r\n",
        "name;sku;price;stock;category;\r\nLämp;A-1;12,50;3;Lighting;\r\n;;;;;\r\n\r\n",
        f",{HEADER}\n0,Lämp,A-1,12.5,3.0,Lighting\n",
        "sku,name,category,price,units,value\nA-1,Lämp,Lighting,12.50,3,37.50\nTotal,,,,3,37.50\n",
    ],
    ids=["sep=", "empty column", "pandas", "stock export"],
)
def test_manners_of_other_programs_are_taken(data: str) -> None:
    assert [row._replace(line=2) for row in read(data) if isinstance(row, Row)] == [LAMP]


def test_line_is_counted_below_a_separator_line() -> None:
    assert [row.line for row in read(f"sep=,\n{HEADER}\nLamp,,1,1,X\n")] == [3]


def test_text_in_a_column_without_a_name_is_rejected() -> None:
    [row] = read("name;sku;price;stock;category;\nLamp;A-1;12;50;3;X\n")

    assert isinstance(row, Fault)
    assert row.reason == "“X” stands in a column without a name"


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("Family 👩‍👩‍👧 mug", "Family 👩‍👩‍👧 mug"),
        ("کتاب\u200cخانه", "کتاب\u200cخانه"),
        ("Donau\u00addampf lamp", "Donaudampf lamp"),
        ("प्रार्थना क्\u200dष", "प्रार्थना क्\u200dष"),
        ("\u200fمصباح", "مصباح"),
        ("Flag 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "Flag 🏴󠁧󠁢󠁥󠁮󠁧󠁿"),
        ("zero\u200bwidth", "zerowidth"),
        ("Kü\u202ehc", "Kühc"),
        ("Ku\u0308che", "Küche"),
        ("soft\vbreak\u00a0here", "soft break here"),
    ],
)
def test_right_names_of_all_scripts_are_taken_in(cell: str, name: str) -> None:
    [row] = read(f"{HEADER}\n{cell},A-1,1,1,X\n")

    assert isinstance(row, Row)
    assert row.name == name


def test_skus_differ_neither_by_case_nor_by_the_way_letters_are_put_together() -> None:
    found = faults("Lamp,KÜ-1,1,1,X", "Lamp,KU\u0308-1,1,1,X", "Lamp,kü-1,1,1,X", "Lamp,00123,1,1,X", "Lamp,123,1,1,X")

    assert found == [(3, "SKU KÜ-1 is already in line 2"), (4, "SKU kü-1 is already in line 2")]


@pytest.mark.parametrize("sku", ["#12", "1-SET", "MAI-22", "10-MAG", "A#NV", "#A1", "03-2026", "E+12"])
def test_sku_that_looks_a_little_like_what_a_spreadsheet_spoils_is_taken(sku: str) -> None:
    assert faults(f"Lamp,{sku},1,1,X") == []


@pytest.mark.parametrize("head", ["\ufeff\ufeffname", "name\u200b", "\u00a0Name ", "\u2060NAME"])
def test_heading_is_known_whatever_no_one_sees_stands_beside_it(head: str) -> None:
    [row] = read(f"{head},sku,price,stock,category\nLamp,A-1,1,1,X\n")

    assert isinstance(row, Row)


def test_line_numbers_count_line_breaks_within_quotes() -> None:
    text = f'{HEADER},description\nLamp,A-1,1,1,X,"one\ntwo\r\nthree"\n\nLamp,,1,1,X,\nLamp,A-3,1,1,X,"a ""b"", c"\n'

    rows = read(text)

    assert [row.line for row in rows] == [2, 6, 7]
    assert isinstance(rows[0], Row)
    assert isinstance(rows[2], Row)
    assert (rows[0].description, rows[2].description) == ("one\ntwo\nthree", 'a "b", c')


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Lamp,A-1,-1.00,3,X", "price is negative"),
        ("Lamp,A-1,0.00,3,X", "price is zero"),
        ("Lamp,A-1,,3,X", "price “” is not an amount such as 12.50"),
        ("Lamp,A-1,€ 5,3,X", "price “€ 5” is not an amount such as 12.50"),
        ('Lamp,A-1,"1,250",3,X', "price “1,250” is not an amount such as 12.50"),
        ("Lamp,A-1,1.999,3,X", "price “1.999” is not an amount such as 12.50"),
        ("Lamp,A-1,NaN,3,X", "price “NaN” is not an amount such as 12.50"),
        ("Lamp,A-1,1e3,3,X", "price “1e3” is not an amount such as 12.50"),
        ("Lamp,A-1,١٢,3,X", "price “١٢” is not an amount such as 12.50"),
        ("Lamp,A-1,1234567890,3,X", "price “1234567890” is not an amount such as 12.50"),
        ("Lamp,A-1,1,-3,X", "stock is negative"),
        ("Lamp,A-1,1,2.5,X", "stock “2.5” is not a whole number"),
        ("Lamp,A-1,1,many,X", "stock “many” is not a whole number"),
        ("Lamp,A-1,1,1000001,X", "stock is more than 1,000,000"),
        (f"Lamp,A-1,1,{'9' * 20},X", "stock is more than 1,000,000"),
        (f"Lamp,A-1,1,{'9' * 5000},X", f"stock “{'9' * 20}” is not a whole number"),
        ("Lamp, ,1,1,X", "sku is empty"),
        (",A-1,1,1,X", "name is empty"),
        ("Lamp,A-1,1,1,", "category is empty"),
        (f"Lamp,{'A' * 21},1,1,X", "sku is longer than 20 characters"),
        (f"{'L' * 81},A-1,1,1,X", "name is longer than 80 characters"),
        (f"Lamp,A-1,1,1,{'X' * 41}", "category is longer than 40 characters"),
        ("La\u0007mp,A-1,1,1,X", "name holds the character U+0007, which cannot be shown"),
        ("Lamp,,-1,-1,X", "sku is empty; price is negative; stock is negative"),
        ("Lamp,4.00638E+12,1,1,X", "sku “4.00638E+12” is what a spreadsheet made of it; format that column as text"),
        ("Lamp,01-Feb,1,1,X", "sku “01-Feb” is what a spreadsheet made of it; format that column as text"),
        *(
            (f"Lamp,{sku},1,1,X", f"sku “{sku}” is what a spreadsheet made of it; format that column as text")
            for sku in ("#REF!", "#BEZUG!", "#¡REF!", "#NV", "#N/D", "02. Mrz", "Mrz 26", "02-févr", "01-feb", "3月2日")
        ),
        ('Lamp,A-1,1,"1,000",X', "stock “1,000” is not a whole number"),
        ("Lamp,A-1,12,50,3,X", "6 cells instead of 5; one that holds the separator needs quotation marks"),
        ("Lamp,A-1", "2 cells instead of 5; one that holds the separator needs quotation marks"),
    ],
)
def test_line_is_rejected_with_its_reason_and_the_others_are_not(line: str, reason: str) -> None:
    assert faults("First,F-1,1,1,X", line, "Last,L-1,1,1,X") == [(3, reason)]


def test_description_is_rejected_when_it_is_too_long() -> None:
    [row] = read(f"{HEADER},description\nLamp,A-1,1,1,X,{'d' * 5001}")

    assert isinstance(row, Fault)
    assert row.reason == "description is longer than 5,000 characters"


def test_sku_that_stands_there_twice_is_rejected_where_it_stands_again() -> None:
    found = faults("Lamp,A-1,bad,1,X", "Lamp,A-1,1,1,X", "Lamp,B-1,1,1,X", "Lamp,A-1,2,1,X")

    assert found[1:] == [(5, "SKU A-1 is already in line 3")]


def test_fault_shows_the_beginning_of_its_line() -> None:
    [row] = read(f"{HEADER}\nLa\tmp,,1,1,{'X' * 500}")

    assert isinstance(row, Fault)
    assert row.raw.startswith("La·mp |  | 1 | 1 | XXX")
    assert len(row.raw) == 200


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("products.csv", HEADER)
    return target.getvalue()


ROW = b"Lamp,A-1,1,1,X\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "The file is empty."),
        (codecs.BOM_UTF8, "Missing columns: name, sku, price, stock, category. The first line says: nothing"),
        (f"{HEADER}\n\n".encode(), "The file has a header, but no products below it."),
        (b"name;sku;stock\nLamp;A-1;1", "Missing columns: price, category. The first line says: name;sku;stock"),
        (f"{HEADER},colour\n".encode() + ROW, f"Unknown columns: colour. The first line says: {HEADER},colour"),
        (f"{HEADER},sku\n".encode() + ROW, f"A column stands there twice. The first line says: {HEADER},sku"),
        (b"Lamp,A-1,12.50,3,Lighting\n", "Missing columns: name, sku, price, stock, category. The first line says: La"),
        (zipped(), "This is a ZIP archive or an Excel workbook (.xlsx), not a CSV file. Save the table as"),
        (b"\xd0\xcf\x11\xe0....", "This is an old Excel workbook (.xls), not a CSV file."),
        (b"\x1f\x8b\x08\x00", "This is a compressed file (gzip), not a CSV file."),
        (
            f"{HEADER}\n".encode() + ROW + b"L\xe4mp,A-2,1,1,X",
            "Line 3 is not UTF-8: the byte 0xE4 means nothing there.",
        ),
        (f"{HEADER}\n".encode() + ROW * 9000 + b"\xff", "Line 9002 is not UTF-8: the byte 0xFF means nothing there."),
        (f"{HEADER}\nLamp".encode() + b"\xc3", "The file ends in the middle of a character."),
        (f"{HEADER}\n".encode("utf-16") + b"x", "The file begins as UTF-16, but is damaged."),
        (f"{HEADER}\n".encode() + ROW + b"La\0mp,A-2,1,1,X", "Line 3 holds binary data: this is not a text file."),
        (f"{HEADER}\n".encode() + ROW + b"x" * 20_001, "Line 3 is longer than 20,000 characters."),
        (b"x" * 5_000_000, "Line 1 is longer than 20,000 characters."),
        (f"{HEADER}\n".encode() + ROW + b'"a\n",' * 200_000, "The row that begins in line 3 is longer than 500,000"),
        (f'{HEADER}\nLamp,A-1,1,1,"X\n'.encode() + ROW, "The row that begins in line 2 is not CSV (unexpected end"),
        (
            f'{HEADER}\nLamp,A-1,1,1,"X\n'.encode() + ROW * 9000,
            "The row that begins in line 2 is not CSV (field larger",
        ),
        (f'{HEADER}\n"Lamp"s,A-1,1,1,X'.encode(), "The row that begins in line 2 is not CSV (',' expected after"),
        (f'"{HEADER}\n'.encode() + ROW, "The row that begins in line 1 is not CSV"),
    ],
)
def test_file_is_refused_as_a_whole_with_a_reason(data: bytes, reason: str) -> None:
    assert refusal(data).startswith(reason)


def test_row_of_many_lines_is_rejected_by_itself() -> None:
    long = 'Lamp,A-1,1,1,X,"a line' + "line\n" * 20_000 + '"'
    [bad, *good] = read(f"{HEADER},description\n{long}\n" + "".join(f"Lamp,B-{n},1,1,X,\n" for n in range(50_000)))

    assert (bad.line, isinstance(bad, Fault), len(good)) == (2, True, 50_000)
    assert all(isinstance(row, Row) for row in good)


def test_file_is_refused_when_it_has_too_many_rows(settings: Any) -> None:
    settings.IMPORT_MAX_ROWS = 2

    assert imports.check(io.BytesIO(f"{HEADER}\n".encode() + ROW * 2)) == 2
    assert refusal(f"{HEADER}\n".encode() + ROW * 3) == "The file has more than 2 rows. Split it into smaller ones."


def test_garbage_is_refused_without_being_read() -> None:
    class Endless(io.RawIOBase):
        read_bytes = 0

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> int:
            return 0

        def readinto(self, buffer: Any) -> int:
            buffer[:] = b"x" * len(buffer)
            self.read_bytes += len(buffer)
            return len(buffer)

    garbage = Endless()
    tracemalloc.start()
    with pytest.raises(Refused, match="Line 1 is longer"):
        imports.check(garbage)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert garbage.read_bytes < 100_000
    assert peak < 2_000_000
