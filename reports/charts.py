"""Charts as SVG, drawn here, so that the same chart stands in the page and in the PDF.

pygal styles its charts with a `<style>` element, which the Content-Security-Policy of the pages refuses. Ours carry
their colours as attributes, for paper; in a page, where any rule of a stylesheet outranks an attribute, `shop.css`
gives them the colours of the scheme, light or dark.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from math import floor, isfinite, log10
from typing import Any, NamedTuple, Protocol

from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from myproject import texts

Number = Decimal | float | int

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 34, 226
TICKS = 4
# As many labels as fit below the chart; on a narrow screen `shop.css` hides every second one.
LABELS = 8
# What a chart says of a value that it cannot draw: the others are drawn all the same.
NO_NUMBER = "no number"


class Mark(NamedTuple):
    """One value as it is drawn: `top` is the upper edge of its bar, `y` the value itself."""

    x: str
    centre: str
    width: str
    top: str
    height: str
    y: str
    says: str


class Draw(Protocol):
    """The signature of `bars` and `line`; `say` formats a value for people."""

    def __call__(
        self, title: str, labels: Sequence[str], values: Sequence[Number], say: Callable[[Any], str] = str
    ) -> SafeString: ...


class Extras(NamedTuple):
    """What a chart on a page says beside its values: their unit, what the last of them is, and whether to compare.

    The comparison is the average of all but the last, which is not over yet.
    """

    unit: str = ""
    last: str = ""
    compares: bool = False


class Text(NamedTuple):
    """An axis label: its position, its text, and whether a narrow screen may hide it."""

    at: str
    says: str
    is_minor: bool = False


def bars(
    title: str,
    labels: Sequence[str],
    values: Sequence[Number],
    say: Callable[[Any], str] = str,
    extras: Extras | None = None,
) -> SafeString:
    """Draw a bar for each value; `say` formats a value for people."""
    return draw("bars", title, labels, values, say, extras)


def line(title: str, labels: Sequence[str], values: Sequence[Number], say: Callable[[Any], str] = str) -> SafeString:
    """Draw a line through the values; `say` formats a value for people."""
    return draw("line", title, labels, values, say)


def draw(
    kind: str,
    title: str,
    labels: Sequence[str],
    values: Sequence[Number],
    say: Callable[[Any], str],
    extras: Extras | None = None,
) -> SafeString:
    # Text from before control characters were refused would break the whole drawing.
    title, labels = texts.in_xml(title), [texts.in_xml(label) for label in labels]
    bad = {n for n, value in enumerate(values) if not is_drawable(value)}
    values = [0 if n in bad else value for n, value in enumerate(values)]
    ticks = scale(min([0, *map(float, values)]), max([0, *map(float, values)]))
    step = (WIDTH - LEFT - RIGHT) / max(len(values), 1)
    marks = [
        mark(LEFT + step * n, step, float(value), ticks, f"{label}: {NO_NUMBER if n in bad else say(value)}")
        for n, (label, value) in enumerate(zip(labels, values, strict=True))
    ]
    context = {
        "is_line": kind == "line",
        "title": title,
        "description": describe(labels, values, say) + left_out([labels[n] for n in sorted(bad)]),
        "marks": marks,
        "zero": place(0, ticks),
        "levels": [Text(place(tick, ticks), short(tick)) for tick in ticks],
        "labels": sparse(marks, labels),
        "frame": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "below": HEIGHT - 8},
    }
    if extras and values:
        context |= added(extras, marks, values, ticks, say)
    return render_to_string("reports/chart.svg", context)


def is_drawable(value: object) -> bool:
    """Return whether it is a number that has a place on an axis: columns also hold what is none (NaN), and nothing."""
    return isinstance(value, (Decimal, float, int)) and isfinite(value)


def left_out(labels: Sequence[str]) -> str:
    return f" Not drawn, since there is {NO_NUMBER}: {', '.join(labels)}." if labels else ""


def added(
    extras: Extras, marks: Sequence[Mark], values: Sequence[Number], ticks: Sequence[float], say: Callable[[Any], str]
) -> dict[str, Any]:
    """Return what the template draws beside the values."""
    top = max(range(len(values)), key=values.__getitem__)
    over: list[Any] = list(values[:-1]) or list(values)
    average = sum(over) / len(over)
    return {
        "unit": extras.unit,
        "last": extras.last,
        "now": marks[-1],
        "peak": {"at": marks[top], "side": side(top, len(values)), "says": say(values[top])} if values[top] else None,
        "average": {"y": place(float(average), ticks), "says": say(average)} if extras.compares and average else None,
    }


def side(number: int, count: int) -> str:
    """Where a label is anchored, so that it stays within the drawing."""
    return "start" if number < count / 5 else "end" if number > count * 4 / 5 else "middle"


def mark(left: float, step: float, value: float, ticks: Sequence[float], says: str) -> Mark:
    y, zero = float(place(value, ticks)), float(place(0, ticks))
    gap = min(step * 0.2, 12)
    sizes = (left + gap / 2, left + step / 2, step - gap, min(y, zero), abs(zero - y), y)
    x, centre, width, top, height, at = (f"{size:.1f}" for size in sizes)
    return Mark(x, centre, width, top, height, at, says)


def scale(low: float, high: float) -> list[float]:
    """Return about four round numbers that span the values."""
    rough = (high - low) / TICKS or 1
    power = 10 ** floor(log10(rough))
    size = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.999)
    first, last = floor(low / size), -floor(-high / size)
    return [n * size for n in range(first, max(last, first + 1) + 1)]


def place(value: float, ticks: Sequence[float]) -> str:
    """Return the value's y coordinate."""
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return f"{BOTTOM - share * (BOTTOM - TOP):.1f}"


def short(value: float) -> str:
    """Abbreviate a round number: 2500 is 2.5k."""
    for size, letter in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def sparse(marks: Sequence[Mark], labels: Sequence[str]) -> list[Text]:
    """Return as many evenly spaced labels as fit, always with the last, which is the newest."""
    every = -(-len(labels) // LABELS) or 1
    chosen = range(len(labels) - 1, -1, -every)
    return [Text(marks[n].centre, labels[n], bool(place % 2)) for place, n in enumerate(chosen)]


def describe(labels: Sequence[str], values: Sequence[Number], say: Callable[[Any], str]) -> str:
    """Describe the chart in words, for screen readers."""
    if not values:
        return "There is nothing to show."
    lowest, highest = min(range(len(values)), key=values.__getitem__), max(range(len(values)), key=values.__getitem__)
    return (
        f"{len(values)} values, {labels[0]} to {labels[-1]}. "
        f"Highest: {say(values[highest])} ({labels[highest]}). Lowest: {say(values[lowest])} ({labels[lowest]})."
    )
