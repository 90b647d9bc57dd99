"""CSV, which spreadsheets open as well: there, a text must not turn into a formula."""

import csv
import io
from collections.abc import Callable, Iterable
from typing import BinaryIO

from reports.kinds import Column, Table, Type
from reports.models import Report

from .copying import Copy, is_formula, local, quoted


def write(report: Report, table: Table, target: BinaryIO, progress: Callable[[int], None]) -> int:
    rows = Copy(table, map(expression, table.columns), progress)
    target.write(line(column.name for column in table.columns))
    for block in rows:
        target.write(block)
    if table.totals:
        target.write(line(f"{v:.4f}" if c.type is Type.CHANGE and v else v for c, v in table.total_cells))
    return rows.count


def expression(column: Column) -> str:
    match column.type:
        case Type.TEXT:
            return f"CASE WHEN {is_formula(column)} THEN '''' || {quoted(column)} ELSE {quoted(column)} END"
        case Type.TIME:
            return local(column)
        case Type.CHANGE:
            return f"round({quoted(column)}, 4)"
    return quoted(column)


def line(values: Iterable[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()
