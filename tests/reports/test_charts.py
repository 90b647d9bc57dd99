"""The SVG of charts: well formed, nothing that the pages' Content-Security-Policy refuses, and the right heights."""

import re
from decimal import Decimal
from xml.etree import ElementTree

import pytest

from reports import charts

SVG = "{http://www.w3.org/2000/svg}"
DAYS = [f"{day} Nov" for day in range(1, 31)]


def parsed(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(chart)


def heights(chart: str) -> list[float]:
    return [float(bar.attrib["height"]) for bar in parsed(chart).iter(f"{SVG}rect")]


def texts(chart: str) -> list[str]:
    return [text.text or "" for text in parsed(chart).iter(f"{SVG}text")]


def test_bars_are_as_high_as_their_values() -> None:
    low, high, nothing = heights(charts.bars("Sales", ["a", "b", "c"], [Decimal("10.00"), Decimal("40.00"), 0]))

    assert high / low == pytest.approx(4, rel=0.01)
    assert nothing == 0


def test_bars_below_zero_hang_from_the_axis() -> None:
    chart = parsed(charts.bars("Sales", ["a", "b"], [30, -10]))

    above, below = chart.iter(f"{SVG}rect")
    [axis] = [line for line in chart.iter(f"{SVG}line") if line.attrib["class"] == "chart-axis"]

    assert float(above.attrib["y"]) + float(above.attrib["height"]) == pytest.approx(float(axis.attrib["y1"]), abs=0.1)
    assert below.attrib["y"] == axis.attrib["y1"]


def test_line_passes_each_value() -> None:
    chart = parsed(charts.line("Sales", ["a", "b", "c"], [1, 3, 2]))

    [line] = chart.iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]

    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[1][1] < points[2][1] < points[0][1]


@pytest.mark.parametrize("draw", [charts.bars, charts.line])
@pytest.mark.parametrize("values", [[], [0], [0, 0, 0], [5], [0.001], [10**12, 1], [-3, -1], [Decimal("0.10")]])
def test_chart_of_any_values_is_well_formed(draw: charts.Draw, values: list[charts.Number]) -> None:
    chart = parsed(draw("Sales", [str(n) for n in range(len(values))], values))

    assert "nan" not in ElementTree.tostring(chart, "unicode")
    assert len(chart.findall(f"{SVG}text")) >= 2


@pytest.mark.parametrize("draw", [charts.bars, charts.line])
def test_chart_says_what_it_shows(draw: charts.Draw) -> None:
    chart = parsed(draw("Sales per day", ["Mon", "Tue", "Wed"], [2, 7, 4], say=lambda value: f"€ {value}"))

    said = "3 values, Mon to Wed. Highest: € 7 (Tue). Lowest: € 2 (Mon)."
    assert (chart.attrib["role"], chart.attrib["aria-label"]) == ("img", f"Sales per day. {said}")
    assert [chart.findtext(f"{SVG}{name}") for name in ("title", "desc")] == ["Sales per day", said]
    marks = [title.text for title in chart.iter(f"{SVG}title")][1:]
    assert marks == ["Mon: € 2", "Tue: € 7", "Wed: € 4"]


@pytest.mark.parametrize("draw", [charts.bars, charts.line])
def test_chart_has_nothing_that_the_policy_of_the_pages_refuses(draw: charts.Draw) -> None:
    chart = draw("Sales", DAYS, range(30))

    assert not re.search(r"style|script|href|url\(", chart)


def test_chart_escapes_what_others_have_named() -> None:
    chart = charts.bars('<script>"&', ["<b>", "]]>"], [1, 2])

    assert "<script>" not in chart
    assert parsed(chart).findtext(f"{SVG}title") == '<script>"&'


def test_labels_are_few_and_the_newest_is_among_them() -> None:
    shown = [text for text in texts(charts.bars("Sales", DAYS, range(30))) if "Nov" in text]

    assert (len(shown) <= charts.LABELS, shown[0]) == (True, "30 Nov")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 0, [0, 1]),
        (0, 97, [0, 50, 100]),
        (0, 4, [0, 1, 2, 3, 4]),
        (0, 8000, [0, 2000, 4000, 6000, 8000]),
        (-3, 7, [-5, 0, 5, 10]),
    ],
)
def test_scale_is_round_and_reaches_all_values(low: float, high: float, ticks: list[float]) -> None:
    assert charts.scale(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "says"), [(0, "0"), (0.5, "0.5"), (999, "999"), (2500, "2.5k"), (-3e6, "-3M"), (2e9, "2bn")]
)
def test_short_numbers_keep_their_meaning(value: float, says: str) -> None:
    assert charts.short(value) == says
