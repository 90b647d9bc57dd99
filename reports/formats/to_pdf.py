"""PDF, set by typst with its own fonts; `document.typ` is the layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import typst
from django.conf import settings
from django.utils import timezone
from django.utils.formats import date_format

from durable.errors import PermanentError
from reports.kinds import NUMBERS, Table
from reports.models import Report

DOCUMENT = Path(__file__).with_name("document.typ")
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
    data = json.dumps(content(report, table, rows)).encode()
    files: Any = {"main": DOCUMENT.read_bytes(), "report.json": data, "chart.svg": str(table.drawn).encode()}
    target.write(typst.compile(files, ignore_system_fonts=True))
    progress(len(rows))
    return len(rows)


def content(report: Report, table: Table, rows: list[list[str]]) -> dict[str, Any]:
    totals = table.total_texts if rows else []
    named = zip(table.columns, totals, strict=False)
    return {
        "title": report.get_kind_display(),
        "shop": settings.SITE_NAME,
        "period": report.subtitle,
        "made": f"made on {date_format(timezone.localtime(), 'j F Y, H:i')}",
        "headings": [column.heading for column in table.columns],
        "widths": [column.width for column in table.columns],
        "right": [column.type in NUMBERS for column in table.columns],
        "rows": rows,
        "totals": totals,
        "figures": [(column.heading, text) for column, text in named if column.name in table.totals],
        "has_chart": bool(table.drawn),
        "chart_title": table.chart_title,
        "empty": table.empty,
    }
