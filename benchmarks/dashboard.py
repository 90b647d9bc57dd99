"""The panels of `deploy/grafana/dashboard.json` as one picture: `python -m benchmarks.dashboard --since 6 --out x.svg`.

It asks a Prometheus, such as that of `make monitoring`, the dashboard's own questions.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import requests

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboard.json"
ACROSS, WIDTH, HEIGHT = 3, 400, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 34, 40
# By Okabe and Ito, who choose colours that the colour-blind tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a8a8a")
UNITS = {"s": " s", "percentunit": " %"}
STYLE = "text{font:12px sans-serif;fill:#333} .t{font-weight:bold} .m{font-size:10px;fill:#a33}"


class Series(NamedTuple):
    name: str
    points: list[tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.dashboard")
    parser.add_argument("--prometheus", default="http://localhost:9090")
    parser.add_argument("--since", type=float, default=6, help="how many minutes are shown")
    parser.add_argument("--panels", nargs="*", default=[], help="their titles; without, all")
    parser.add_argument("--mark", nargs="*", default=[], help="moments, such as 90=killed for the 90th second")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    end = time.time()
    start = end - 60 * options.since
    marks = [(start + float(second), text) for second, _, text in (mark.partition("=") for mark in options.mark)]
    panels = [
        (panel, [series for target in panel["targets"] for series in ask(options.prometheus, target, start, end)])
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        if panel["type"] == "timeseries" and panel["title"] in (options.panels or [panel["title"]])
    ]
    options.out.write_text(picture(panels, start, end, marks))


def ask(prometheus: str, target: dict[str, Any], start: float, end: float) -> Iterator[Series]:
    """Yield a series for each set of labels; what has no value, or none that is a number, is left out."""
    query = target["expr"].replace("$__rate_interval", "1m")
    asked = {"query": query, "start": start, "end": end, "step": "5s"}
    try:
        answer = requests.get(f"{prometheus}/api/v1/query_range", asked, timeout=20)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise SystemExit(f"Prometheus does not answer: {error}") from None
    for row in answer.json()["data"]["result"]:
        points = [(at, float(value)) for at, value in row["values"] if value not in ("NaN", "+Inf", "-Inf")]
        if points:
            yield Series(" ".join(row["metric"].values()), points)


def picture(panels: Sequence[tuple[Any, list[Series]]], start: float, end: float, marks: list[Any]) -> str:
    height = HEIGHT * -(-len(panels) // ACROSS)
    parts = [
        f'<g transform="translate({WIDTH * (number % ACROSS)},{HEIGHT * (number // ACROSS)})">'
        + "".join(drawn(panel, series, start, end, marks))
        + "</g>"
        for number, (panel, series) in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * ACROSS} {height}"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def drawn(panel: Any, series: list[Series], start: float, end: float, marks: list[Any]) -> Iterator[str]:
    """Yield the panel's title, the lines, the marked moments and the names of the largest."""
    top = max((value for one in series for _, value in one.points), default=0) or 1
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    unit = panel["fieldConfig"]["defaults"].get("unit", "")
    shown = f"{100 * top:.0f}" if unit == "percentunit" else f"{top:,.3g}" if top < 100 else f"{top:,.0f}"

    def x(at: float) -> float:
        return LEFT + across * (at - start) / (end - start)

    yield f'<text class="t" x="{LEFT}" y="20">{escape(panel["title"])}</text>'
    yield f'<text x="{LEFT - 6}" y="{TOP + 9}" text-anchor="end">{shown}{UNITS.get(unit, "")}</text>'
    yield f'<text x="{LEFT - 6}" y="{TOP + down}" text-anchor="end">0</text>'
    yield f'<path d="M{LEFT} {TOP}v{down}h{across}" fill="none" stroke="#bbb"/>'
    for at, text in marks:
        yield f'<path d="M{x(at):.0f} {TOP}v{down}" stroke="#a33" stroke-dasharray="2 3"/>'
        yield f'<text class="m" x="{x(at) + 2:.0f}" y="{TOP + 9}">{escape(text)}</text>'
    largest = sorted(series, key=lambda one: -max(value for _, value in one.points))[: len(COLOURS)]
    for one, colour in zip(largest, COLOURS, strict=False):
        line = " ".join(f"{x(at):.0f},{TOP + down * (1 - value / top):.0f}" for at, value in one.points)
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    named = [(one.name, colour) for one, colour in zip(largest, COLOURS, strict=False) if one.name]
    names = "  ".join(f'<tspan fill="{colour}">{escape(name)}</tspan>' for name, colour in named)
    yield f'<text x="{LEFT}" y="{HEIGHT - BOTTOM + 20}">{names}</text>'


if __name__ == "__main__":
    main()
