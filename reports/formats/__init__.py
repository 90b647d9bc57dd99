"""Writers: each writes a report's rows to a binary file, reports its `progress`, and returns the number of rows."""

from collections.abc import Callable
from typing import Any, BinaryIO

from django.utils.module_loading import import_string

from reports.kinds import Table
from reports.models import Format, Report

# Imported on first use: Arrow and typst take 50 MB in a process that may write neither Parquet nor PDF.
WRITERS = {
    Format.CSV: "reports.formats.to_csv.write",
    Format.XLSX: "reports.formats.to_xlsx.write",
    Format.PARQUET: "reports.formats.to_parquet.write",
    Format.PDF: "reports.formats.to_pdf.write",
}


def write(report: Report, table: Table, target: BinaryIO, progress: Callable[[int], None]) -> int:
    """Write the table in the report's format; return how many rows it has."""
    writer: Callable[..., Any] = import_string(WRITERS[Format(report.format)])
    return int(writer(report, table, target, progress))
