"""Writers: each writes a report's rows to a binary file, reports its `progress`, and returns the number of rows."""

from collections.abc import Callable
from typing import Any, BinaryIO

from django.utils.module_loading import import_string

from durable.errors import PermanentError
from reports.kinds import Table
from reports.models import EXTRAS, Format, Report

# Imported on first use: Arrow and typst take 50 MB in a process that may write neither Parquet nor PDF.
WRITERS = {
    Format.CSV: "reports.formats.to_csv.write",
    Format.XLSX: "reports.formats.to_xlsx.write",
    Format.PARQUET: "reports.formats.to_parquet.write",
    Format.PDF: "reports.formats.to_pdf.write",
}


class NotInstalled(PermanentError):
    def __init__(self, form: Format, package: str | None) -> None:
        super().__init__(f"{form.label} needs {package}: pip install -r requirements-{form}.txt")


def write(report: Report, table: Table, target: BinaryIO, progress: Callable[[int], None]) -> int:
    """Write the table in the report's format; return how many rows it has. Raises `NotInstalled`."""
    form = Format(report.format)
    try:
        writer: Callable[..., Any] = import_string(WRITERS[form])
    except ModuleNotFoundError as error:
        if form not in EXTRAS:
            raise
        raise NotInstalled(form, error.name) from None
    return int(writer(report, table, target, progress))
