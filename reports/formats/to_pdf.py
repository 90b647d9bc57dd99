"""PDF, set by typst with its own fonts; `document.typ` is the layout."""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import manimgx_fonts
import manimgx_fonts_cjk
import typst
from django.conf import settings
from django.utils import timezone
from django.utils.formats import date_format

from durable.errors import PermanentError
from reports.kinds import NUMBERS, Table
from reports.models import Report

DOCUMENT = Path(__file__).with_name("document.typ")
FONTS = [Path(str(package.__file__)).parent for package in (manimgx_fonts, manimgx_fonts_cjk)]
# The first that has a letter shows it; without a list, Arabic is set in a font for programs.
FAMILIES = ["Libertinus Serif", "Noto Sans", *(f"Noto Sans {script}" for script in ("Arabic", "CJK SC")), "Noto Emoji"]
# Beyond these, of Latin, Greek and Cyrillic, it is asked whether there is a letter.
SURE = re.compile("[\u0000-\u017f\u0391-\u03c9\u0410-\u044f\u2010-\u2026€]*")
# What typst reports about PDF/A, documents for long-term archiving.
MISSING = re.compile(r'the text `"(.+?)"` could not be displayed')
EACH_LETTER = b'#set text(font: json("fonts.json"))\n#for letter in json("letters.json") [#letter #parbreak()]'
# About fifty pages, which take a few seconds and are built in memory.
ROWS = 2_000


class TooLong(PermanentError):
    def __init__(self) -> None:
        super().__init__(f"A PDF has at most {ROWS:,} rows. Choose fewer days, or Excel or CSV instead.")


def write(report: Report, table: Table, target: BinaryIO, progress: Callable[[int], None]) -> int:
    """Write the report as a document; raises `TooLong`."""
    rows = table.texts(ROWS + 1)
    if len(rows) > ROWS:
        raise TooLong
    said = content(report, table, rows)
    said["unshown"] = ", ".join(f"U+{ord(letter):04X}" for letter in unshown(json.dumps(said, ensure_ascii=False)))
    drawn = str(table.drawn).encode()
    target.write(compiled({"main": DOCUMENT.read_bytes(), "report.json": encoded(said), "chart.svg": drawn}))
    progress(len(rows))
    return len(rows)


def compiled(files: dict[str, Any], **options: Any) -> bytes:
    files["fonts.json"] = encoded(FAMILIES)
    made: bytes = typst.compile(files, font_paths=FONTS, ignore_system_fonts=True, **options)
    return made


def encoded(data: object) -> bytes:
    return json.dumps(data).encode()


def unshown(text: str) -> list[str]:
    """Return the letters of the text that none of the fonts has."""
    letters = sorted(
        {letter for letter in text if not SURE.fullmatch(letter) and unicodedata.category(letter)[0] in "LNPS"}
    )
    if not letters:
        return []
    try:
        compiled({"main": EACH_LETTER, "letters.json": encoded(letters)}, pdf_standards="a-2b")
    except typst.TypstError as error:
        missing = set("".join(MISSING.findall(str(error.diagnostic))))
        return [letter for letter in letters if letter in missing]
    return []


def content(report: Report, table: Table, rows: list[list[str]]) -> dict[str, Any]:
    totals = table.total_texts if rows else []
    widths, is_wide = [column.width for column in table.columns], len(table.columns) > 6
    limits = too_long(widths, is_wide)
    named = zip(table.columns, totals, strict=False)
    return {
        "title": report.get_kind_display(),
        "shop": settings.SITE_NAME,
        "period": report.subtitle,
        "made": f"made on {date_format(timezone.localtime(), 'j F Y, H:i')}",
        "headings": [column.heading for column in table.columns],
        "widths": widths,
        "wide": is_wide,
        "right": [column.type in NUMBERS for column in table.columns],
        "too-long": limits,
        "rows": [row if fits(row, limits) else {"long": row} for row in rows],
        "totals": totals,
        "figures": [(column.heading, text) for column, text in named if column.name in table.totals],
        "has_chart": bool(table.drawn),
        "chart_title": table.chart_title,
        "empty": table.empty,
    }


def too_long(widths: Sequence[float], is_wide: bool) -> list[int]:
    """Return for each column how many letters a word has that may not fit; the columns share the width of the page."""
    letters = 110 if is_wide else 75
    return [max(6, int(letters * width / sum(widths))) for width in widths]


def fits(row: Sequence[str], limits: Sequence[int]) -> bool:
    return all(len(word) < limit for text, limit in zip(row, limits, strict=True) for word in text.split())
