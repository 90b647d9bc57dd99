"""What held and what did not, as a table: printed, as Markdown and as HTML in var/faults/."""

import html
import platform
from datetime import datetime
from typing import NamedTuple

import pytest
from django.conf import settings
from django.utils import timezone

GREEN, RED, EMPTY = "✅", "❌", "–"
PAGE = """<!doctype html><meta charset="utf-8"><title>Faults</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem }} table {{ border-collapse: collapse }}
th, td {{ border: 1px solid #999; padding: .25rem .6rem; text-align: left }}</style>
<h1>Faults</h1><p>{about}</p>{tables}
"""


class Result(NamedTuple):
    row: str
    column: str
    passed: bool
    figures: str


Table = list[list[str]]
RESULTS: list[Result] = []


def note(item: pytest.Item, report: pytest.TestReport) -> None:
    """Keep a test's result: of the matrix by its point and fault, of others by what they say they prove."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    proves = (getattr(item, "function", item).__doc__ or item.name).strip().splitlines()[0]
    figures = ", ".join(f"{name}: {value}" for name, value in report.user_properties)
    RESULTS.append(Result(parameters.get("fault", proves), parameters.get("point", ""), report.passed, figures))


def matrix() -> Table:
    cells = {(result.row, result.column): result.passed for result in RESULTS if result.column}
    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    marks = {key: GREEN if passed else RED for key, passed in cells.items()}
    return [["", *columns], *([row, *(marks.get((row, column), EMPTY) for column in columns)] for row in rows)]


def others() -> Table:
    rows = [[GREEN if r.passed else RED, r.row, r.figures] for r in RESULTS if not r.column]
    return [["", "what is proved", "figures"], *rows]


def tables() -> list[Table]:
    return [table for table in (matrix(), others()) if len(table) > 1]


def as_markdown(table: Table) -> str:
    head, *rows = ("| " + " | ".join(row) + " |" for row in table)
    return "\n".join([head, "|---" * len(table[0]) + "|", *rows])


def as_html(table: Table) -> str:
    rows = ("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table)
    return f"<table>{''.join(rows)}</table><br>"


def write(about: str) -> str:
    """Write the files and return what to print."""
    folder = settings.BASE_DIR / "var" / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    now: datetime = timezone.localtime()
    about = f"make faults {about}, {now:%Y-%m-%d %H:%M}, Python {platform.python_version()}"
    text = "\n\n".join(["# Faults", f"`{about}`", *map(as_markdown, tables())]) + "\n"
    (folder / "faults.md").write_text(text)
    (folder / "faults.html").write_text(PAGE.format(about=html.escape(about), tables="".join(map(as_html, tables()))))
    return f"{text}\nAlso in {folder}/faults.md and faults.html"
