"""What an experiment is: two ways to do the same, a fault, and what must be seen of each way, in numbers."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings

if TYPE_CHECKING:
    from lab.arena import Arena

Numbers = Mapping[str, float]

# What the numbers of a side are, in the order in which they are told.
WORDS = {
    "placed": "orders placed",
    "asked": "asked for",
    "ended": "ended",
    "waiting": "left open",
    "lost": "lost",
    "failed": "failed",
    "errors": "errors shown to the visitor",
    "runs": "runs of the task",
    "overwritten": "ended by an overtaken worker",
    "charged": "charges",
    "doubled": "done twice",
    "mailed": "mails sent",
    "sold": "units sold",
    "stock": "units in stock",
    "vanished": "units vanished",
    "messages": "messages in the queue",
    "before": "tasks that ran before it",
    "queries": "queries",
    "rows": "rows",
    "connections": "connections opened",
    "noted": "noted for a person",
    "accepted": "forged messages run",
    "workers": "workers alive",
    "minutes": "minutes of silence",
    "seconds": "seconds",
}


class Claim(NamedTuple):
    """What one number must be."""

    words: str
    holds: Callable[[float], bool]


def exactly(wanted: float) -> Claim:
    return Claim(f"{wanted:,g}", lambda found: found == wanted)


def at_least(wanted: float) -> Claim:
    return Claim(f"at least {wanted:,g}", lambda found: found >= wanted)


def at_most(wanted: float) -> Claim:
    return Claim(f"at most {wanted:,g}", lambda found: found <= wanted)


class Line(NamedTuple):
    """A line of code as it is shown."""

    number: int
    text: str
    is_marked: bool


class Snippet(NamedTuple):
    path: str
    name: str
    lines: list[Line]

    @property
    def place(self) -> str:
        return f"{self.path} · {self.name}"


@dataclass(frozen=True)
class Side:
    """One way to do it: what runs, what is shown of its code, and what must be seen."""

    run: Callable[["Arena"], Numbers]
    # Functions, tasks and classes, and settings by their names.
    shows: tuple[Any, ...]
    # A part of the line that matters.
    line: str
    claims: Mapping[str, Claim]

    def broken(self, numbers: Numbers) -> list[str]:
        """Say which claims do not hold."""
        return [
            f"{name} is {numbers.get(name, 'missing')}, not {claim.words}"
            for name, claim in self.claims.items()
            if name not in numbers or not claim.holds(numbers[name])
        ]

    @cached_property
    def code(self) -> list[Snippet]:
        return [snippet(thing, self.line) for thing in self.shows]


@dataclass(frozen=True)
class Experiment:
    """`practice` is what tutorials do, `fault` what is done to both sides, `why` what the difference comes from."""

    slug: str
    title: str
    practice: str
    fault: str
    naive: Side
    ours: Side
    why: str
    # Places in the code, as "path · name".
    answers: tuple[str, ...]
    # A test of the shop that would notice the absence of our way.
    test: str
    # The page of the documentation that says more, as a path below docs/.
    docs: str

    @property
    def page(self) -> str:
        return f"docs/{self.docs}"

    @property
    def sides(self) -> dict[str, Side]:
        return {"naive": self.naive, "ours": self.ours}


EXPERIMENTS: dict[str, Experiment] = {}


def experiment(slug: str, title: str, **fields: Any) -> Experiment:
    """Enter an experiment into the registry."""
    EXPERIMENTS[slug] = made = Experiment(slug, title, **fields)
    return made


def snippet(thing: Any, mark: str) -> Snippet:
    """Return the source of a function, a task, a class or a setting, its line that matters marked."""
    if isinstance(thing, str):
        return setting(thing, mark)
    code = inspect.unwrap(function_of(thing))
    source, first = inspect.getsourcelines(code)
    indent = len(source[0]) - len(source[0].lstrip())
    path = Path(inspect.getsourcefile(code) or "").relative_to(settings.BASE_DIR)
    lines = [Line(first + n, text[indent:].rstrip("\n"), mark in text) for n, text in enumerate(source)]
    return Snippet(str(path), code.__name__, lines)


def setting(name: str, mark: str) -> Snippet:
    """Return the lines of a setting, with the comment above it."""
    path = settings.BASE_DIR / "myproject" / "settings.py"
    lines = path.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"{name} = "))
    last = first
    while lines[first - 1].startswith("#"):
        first -= 1
    while lines[last + 1].startswith((" ", "}", ")", "]")):
        last += 1
    shown = [Line(number + 1, lines[number], mark in lines[number]) for number in range(first, last + 1)]
    return Snippet("myproject/settings.py", name, shown)


def function_of(thing: Any) -> Any:
    """Return the function that a task was made of, or the thing itself."""
    run = getattr(thing, "_orig_run", None) or getattr(thing, "run", None)
    if run is None or inspect.isclass(thing):
        return thing
    return getattr(run, "__func__", run)
