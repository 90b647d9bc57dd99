"""XLSX: the database formats the rows as XML, Python zips them.

Twenty times as fast as XlsxWriter, whose constant-memory mode formats each cell in Python. The cost is this file,
which has to know the format (ECMA-376, part 1, *SpreadsheetML*).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, groupby
from typing import Any, BinaryIO
from xml.sax.saxutils import escape, quoteattr
from zipfile import ZIP_DEFLATED, ZipFile

from django.conf import settings

from myproject import texts
from orders.money import places
from reports.kinds import Column, Table, Type
from reports.models import Report

from .copying import BLOCK, Copy, is_formula, local, quoted

# A sheet ends at row 1,048,576; further rows go on the next one.
BLOCKS_IN_SHEET = 1_048_000 // BLOCK
# Neither character occurs in the XML, so nothing is ever quoted.
OPTIONS = r"FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02'"
# What `texts.in_xml` leaves out, of what a text in PostgreSQL can hold: no NUL, and no halves of surrogates.
NUMBERS_HELD = chain(range(1, 0xD800), range(0xE000, 0x10000))
UNSPEAKABLE = "".join(rf"\u{number:04x}" for number in NUMBERS_HELD if not texts.in_xml(chr(number)))
ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", r"\n": "&#10;", r"\r": "&#13;"}
# Spreadsheets decode this as a character (ECMA-376, ST_Xstring) unless its underscore is escaped.
NUMBERED = "_(x[0-9A-Fa-f]{4}_)"
# A character to escape or to drop, or a space at an end, which XML readers would strip.
SPECIAL = rf"[&<>\t\n\r{UNSPEAKABLE}]|^\s|\s$|{NUMBERED}"
NUMBER_FORMATS = {
    Type.TEXT: "@",
    Type.TIME: "yyyy-mm-dd hh:mm:ss",
    Type.DATE: "yyyy-mm-dd",
    Type.WHOLE: "#,##0",
    Type.MONEY: "#,##0.00",
    Type.CHANGE: "+0.0%;-0.0%;0.0%",
}
# Indexes of the styles in the workbook; each style for totals follows its usual one by the number of types.
HEADER, PLAIN = 1, {type_: place for place, type_ in enumerate(Type, start=2)}
TOTAL = {type_: place + len(Type) for type_, place in PLAIN.items()}
# Excel keeps such a cell a text even after an edit.
QUOTED = 2 + 2 * len(Type)
THIN = '<top style="thin"><color rgb="FF1D5A54"/></top>'
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'


def write(report: Report, table: Table, target: BinaryIO, progress: Callable[[int], None]) -> int:
    cells = " || ".join(map(expression, table.columns))
    rows = Copy(table, [f"'<row>' || {cells} || '</row>'"], progress, OPTIONS)
    # Level 1 takes a third of the default level's time, for a file that is a fifth larger.
    with ZipFile(target, "w", ZIP_DEFLATED, compresslevel=1) as package:
        parts = groupby(enumerate(chain(rows, ending(table, rows))), key=lambda pair: pair[0] // BLOCKS_IN_SHEET)
        sheets = 0
        for sheets, (_, blocks) in enumerate(parts, start=1):
            write_sheet(package, sheets, table, (block for _, block in blocks))
        write_frame(package, report.get_kind_display(), sheets, table)
    return rows.count


def ending(table: Table, rows: Copy) -> Iterator[bytes]:
    """Yield what follows the rows: totals, or a note that there are no rows."""
    if not rows.count:
        yield row([cell(table.empty, PLAIN[Type.TEXT])])
    if table.totals:
        yield row(cell(value, TOTAL[column.type]) for column, value in table.total_cells)
    if rows.count and not table.totals:
        yield b""


def write_sheet(package: ZipFile, number: int, table: Table, blocks: Iterable[bytes]) -> None:
    widths = "".join(
        f'<col min="{place}" max="{place}" width="{column.width}" customWidth="1"/>'
        for place, column in enumerate(table.columns, start=1)
    )
    frozen = '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/>'
    # A sheet may exceed the 4 GB of a ZIP without the ZIP64 extension.
    with package.open(f"xl/worksheets/sheet{number}.xml", "w", force_zip64=True) as sheet:
        sheet.write(f'{DECLARATION}<worksheet xmlns="{SHEET}"><sheetViews>'.encode())
        sheet.write(f'<sheetView workbookViewId="0">{frozen}</sheetView></sheetViews>'.encode())
        sheet.write(f"<cols>{widths}</cols><sheetData>".encode())
        sheet.write(row(cell(column.heading, HEADER) for column in table.columns))
        for block in blocks:
            sheet.write(block)
        sheet.write(b"</sheetData></worksheet>")


# --- Cells: written by the database, and by Python ---


def expression(column: Column) -> str:
    """Return the SQL that makes a cell of the column's value."""
    style = PLAIN[column.type]
    match column.type:
        case Type.TEXT:
            return text_expression(column)
        case Type.TIME:
            value = f"(extract(epoch FROM {local(column)})::float8 / 86400 + 25569)"
        case Type.DATE:
            value = f"({quoted(column)} - DATE '1899-12-30')"
        case Type.CHANGE:
            value = f"round({quoted(column)}, 4)"
        case _:
            value = quoted(column)
    return f"""coalesce('<c s="{style}"><v>' || {value} || '</v></c>', '<c/>')"""


def text_expression(column: Column) -> str:
    """Return the SQL that makes a cell of a text. Escaping costs as much as the rest of the row; few texts need it."""
    style = f"CASE WHEN {is_formula(column)} THEN {QUOTED} ELSE {PLAIN[Type.TEXT]} END"
    text = f"translate({quoted(column)}, E'{UNSPEAKABLE}', '')"
    text = rf"regexp_replace({text}, '{NUMBERED}', '_x005F_\1', 'g')"
    for letter, code in ESCAPES.items():
        text = f"replace({text}, E'{letter}', '{code}')"
    opening = """'" t="inlineStr"><is><t xml:space="preserve">'"""
    careful = f"""'<c s="' || {style} || {opening} || {text} || '</t></is></c>'"""
    plain = f"""'<c s="{PLAIN[Type.TEXT]}" t="inlineStr"><is><t>' || {quoted(column)} || '</t></is></c>'"""
    return f"CASE WHEN {quoted(column)} ~ '{SPECIAL}' OR {is_formula(column)} THEN {careful} ELSE {plain} END"


def row(cells: Iterable[str]) -> bytes:
    return f"<row>{''.join(cells)}</row>\n".encode()


def cell(value: Any, style: int) -> str:
    if isinstance(value, str):
        return f'<c s="{style}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    return f'<c s="{style}"/>' if value is None else f'<c s="{style}"><v>{value}</v></c>'


# --- The workbook ---


def write_frame(package: ZipFile, title: str, sheets: int, table: Table) -> None:
    numbers = range(1, sheets + 1)
    names = [title, *(f"{title} {number}" for number in numbers[1:])]
    listed = "".join(
        f'<sheet name={quoteattr(name)} sheetId="{n}" r:id="s{n}"/>' for n, name in zip(numbers, names, strict=True)
    )
    put(
        package, "xl/workbook.xml", f'<workbook xmlns="{SHEET}" xmlns:r="{OFFICE}"><sheets>{listed}</sheets></workbook>'
    )
    put(package, "xl/styles.xml", styles(number_formats(table)))
    parts = {f"s{n}": ("worksheet", f"worksheets/sheet{n}.xml") for n in numbers} | {"styles": ("styles", "styles.xml")}
    put(package, "xl/_rels/workbook.xml.rels", relations(parts))
    put(package, "_rels/.rels", relations({"book": ("officeDocument", "xl/workbook.xml")}))
    put(package, "[Content_Types].xml", content_types(numbers))


def put(package: ZipFile, name: str, text: str) -> None:
    package.writestr(name, DECLARATION + text)


def relations(parts: dict[str, tuple[str, str]]) -> str:
    lines = (
        f'<Relationship Id="{key}" Type="{OFFICE}/{kind}" Target="{path}"/>' for key, (kind, path) in parts.items()
    )
    return f'<Relationships xmlns="{PACKAGE}/relationships">{"".join(lines)}</Relationships>'


def content_types(numbers: Iterable[int]) -> str:
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml."
    parts = {"workbook.xml": "sheet.main", "styles.xml": "styles"}
    parts |= {f"worksheets/sheet{number}.xml": "worksheet" for number in numbers}
    lines = (f'<Override PartName="/xl/{path}" ContentType="{kind}{what}+xml"/>' for path, what in parts.items())
    rels = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    return f'<Types xmlns="{PACKAGE}/content-types">{rels}{"".join(lines)}</Types>'


def number_formats(table: Table) -> dict[Type, str]:
    """Drop the decimal places that the shop's currency does not have, if all amounts are in it."""
    is_own = all(column.name != "currency" for column in table.columns)
    whole = {Type.MONEY: NUMBER_FORMATS[Type.WHOLE]} if is_own and not places(settings.CURRENCY) else {}
    return NUMBER_FORMATS | whole


def styles(number_formats: Mapping[Type, str]) -> str:
    formats = "".join(
        f'<numFmt numFmtId="{163 + place}" formatCode={quoteattr(number_formats[type_])}/>'
        for type_, place in PLAIN.items()
    )
    usual = "".join(style(163 + place) for place in PLAIN.values())
    total = "".join(style(163 + place, "font 1", "border 1") for place in PLAIN.values())
    cells = f"{style(0)}{style(0, 'font 1', 'fill 2', 'border 1')}{usual}{total}"
    cells += style(163 + PLAIN[Type.TEXT]).replace("/>", ' quotePrefix="1"/>')
    font = '<sz val="11"/><name val="Calibri"/>'
    none = "<left/><right/><top/><bottom/><diagonal/>"
    return (
        f'<styleSheet xmlns="{SHEET}"><numFmts count="{len(Type)}">{formats}</numFmts>'
        f'<fonts count="2"><font>{font}</font><font><b/>{font}</font></fonts>'
        '<fills count="3"><fill><patternFill patternType="none"/></fill>'
        '<fill><patternFill patternType="gray125"/></fill>'
        '<fill><patternFill patternType="solid"><fgColor rgb="FFDCEBE6"/></patternFill></fill></fills>'
        f'<borders count="2"><border>{none}</border><border>{none.replace("<top/>", THIN)}</border></borders>'
        '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
        f'<cellXfs count="{QUOTED + 1}">{cells}</cellXfs>'
        '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>'
    )


def style(number_format: int, *parts: str) -> str:
    chosen = {"font": "0", "fill": "0", "border": "0"} | dict(part.split() for part in parts)
    ids = "".join(f' {part}Id="{place}" apply{part.title()}="1"' for part, place in chosen.items())
    return f'<xf numFmtId="{number_format}" applyNumberFormat="1"{ids} xfId="0"/>'
