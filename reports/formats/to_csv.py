"""CSV. Spreadsheets open it as well, and must not read a text as a formula."""

import csv
import io
import re
from collections.abc import Callable, Iterable
from typing import BinaryIO

from myproject import texts
from reports.kinds import Column, Table, Type
from reports.models import Report

from .copying import Copy, is_formula, local, quoted

# A formula within a text, at which a cell begins for a spreadsheet that separates cells by semicolons, as German ones
# do, or by tabs: it does not see the quotes then, since they do not begin a cell.
SIGNS = "|".join(map(re.escape, texts.FORMULA_SIGNS))
HIDDEN = re.compile(f'([;{texts.FORMULA_ENDS}]"*)(?={SIGNS})'.encode())


def write(report: Report, table: Table, target: BinaryIO, progress: Callable[[int], None]) -> int:
    rows = Copy(table, map(expression, table.columns), progress)
    target.write(texts.BOM.encode() + line(column.name for column in table.columns))
    done = 0
    for block in rows:
        target.write(harmless(block, rows.count - done))
        done = rows.count
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


def harmless(block: bytes, count: int) -> bytes:
    """Put an apostrophe before formulas within texts."""
    # A search takes a quarter of the time of the copy, and few blocks need one: those with a separator or extra lines.
    if b";" in block or b"\t" in block or b"\r" in block or block.count(b"\n") > count:
        return HIDDEN.sub(rb"\1'", block)
    return block


def line(values: Iterable[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()
