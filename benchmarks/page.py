"""The figures of runs as a page of the documentation, with a chart: `python -m benchmarks.page`; `make docs` runs it.

Each file in `results` is what `make bench`, or a part of it, has left in `var/bench.json`.
"""

import json
from collections.abc import Iterator
from html import escape
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOUND, PAGE = HERE / "results", HERE.parent / "docs" / "performance" / "figures.md"
# Of a scenario with more goals than that, such as one for each page, the chart shows the one that is missed most.
SHOWN = 6
WIDTH, STEP, BAR = 720, 38, 12
# The goal is in the middle; what is twice as good, or better, fills the line.
GOAL, MOST = WIDTH / 2, 2
HEAD = """# Figures

Of the runs in `benchmarks/results`. Medians of the rounds, from the lowest to the highest in brackets; sides took turns
within each round. The ratio is to the first line of each table, or to what its name says.

Each bar is a goal, which is the line in the middle; a bar that ends before it has missed.
"""
RUN = """## {at}

{machine}, load {load} when it began. {versions}.

```{{raw}} html
{chart}
```
"""
UNITS = {"ms": (1000, " ms"), "MB": (1, " MB")}

Row = dict[str, Any]


def main() -> None:
    runs = [json.loads(path.read_text()) for path in sorted(FOUND.glob("*.json"))]
    PAGE.write_text("\n".join([HEAD, *(part for run in runs for part in told(run))]))


def told(run: dict[str, Any]) -> Iterator[str]:
    scenarios = [(title, list(rows)) for title, rows in groupby(run["rows"], itemgetter("scenario"))]
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    yield RUN.format(**run | {"versions": versions, "chart": chart(scenarios)})
    for title, rows in scenarios:
        yield table(title, rows)


def table(title: str, rows: list[Row]) -> str:
    lines = [f"| {row['side']} | {figure(row)} | {row['ratio']:.2f}\N{NO-BREAK SPACE}× | {goal(row)} |" for row in rows]
    return "\n".join([f"### {title}", "", "| | | ratio | goal |", "|---|--:|--:|---|", *lines, ""])


def figure(row: Row) -> str:
    factor, unit = UNITS.get(row["unit"], (1, f" {row['unit']}"))
    low, high = (f"{extreme(row['rounds']) * factor:,.{places(row)}f}" for extreme in (min, max))
    return f"{row['figure'] * factor:,.{places(row)}f}{unit}<br>({low} to {high})"


def places(row: Row) -> int:
    return 1 if row["unit"] == "ms" else 0


def goal(row: Row) -> str:
    words = [f"{words} {row[name]:g} {unit}" for name, words, unit in LIMITS if name in row]
    return "; ".join(words) + (", **missed**" if words and not row["reached"] else "")


LIMITS = [("least", "at least", "×"), ("most", "at most", "×"), ("above", "at most", "MB more")]


def chart(scenarios: list[tuple[str, list[Row]]]) -> str:
    """Draw a bar for each goal, as far as it is reached."""
    shown = [(f"{title}: {row['side']}", row) for title, rows in scenarios for row in chosen(rows)]
    bars = "\n".join(bar(place, says, row) for place, (says, row) in enumerate(shown))
    attributes = (
        f'viewBox="0 0 {WIDTH} {STEP * len(shown)}" width="100%" role="img" aria-label="How far each goal is reached"'
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" {attributes} font-size="13">\n{bars}\n</svg>'


def chosen(rows: list[Row]) -> Iterator[Row]:
    goals = [row for row in rows if "least" in row or "most" in row]
    yield from goals if len(goals) <= SHOWN else [min(goals, key=share)]


def share(row: Row) -> float:
    """Return how far the goal is reached: 1 is just, and more is better."""
    return float(row["ratio"] / row["least"] if "least" in row else row["most"] / row["ratio"])


def bar(place: int, says: str, row: Row) -> str:
    top, width = STEP * place, min(share(row), MOST) * GOAL
    colour = "#2a7d4f" if row["reached"] else "#c0392b"
    text = f'<text x="0" y="{top + 14}" fill="currentColor">{escape(says)}: {row["ratio"]:.2f} ×, {goal(row)}</text>'
    filled = f'<rect x="0" y="{top + 20}" width="{width:.0f}" height="{BAR}" fill="{colour}"/>'
    middle = f'<path d="M{GOAL:g} {top + 18}v{BAR + 4}" stroke="currentColor" stroke-width="2"/>'
    return text.replace("**", "") + filled + middle


if __name__ == "__main__":
    main()
