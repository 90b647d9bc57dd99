"""The registry of guards: each practice with its line of code, the edit that takes it out, and the tests that notice.

The `.toml` files beside this one hold the guards of one area each. `make guards` takes out each guard in turn, and
`manage.py reference` makes a page of them.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


class Changed(Exception):
    """The code is no longer what the guard's edit expects."""


@dataclass(frozen=True)
class Guard:
    """One practice; `old` stands in `file` exactly once, and with `new` in its place one of the `tests` fails."""

    # The file of the registry that has it.
    entry: str
    area: str
    practice: str
    source: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def needs_migrations(self) -> bool:
        """Return whether the edit changes what the database looks like."""
        return "/migrations/" in self.file

    @property
    def files(self) -> set[str]:
        return {self.entry, self.file, *(test.partition("::")[0] for test in self.tests)}

    def taken_out(self, text: str) -> str:
        """Return the file's text without the guard. Raises `Changed`."""
        if (count := text.count(self.old)) != 1:
            raise Changed(f"{self.file} has these lines {count} times, not once:\n{self.old}")
        return text.replace(self.old, self.new)


def all_guards() -> list[Guard]:
    return [guard for path in sorted(FOLDER.glob("*.toml")) for guard in guards_of(path)]


def guards_of(path: Path) -> Iterator[Guard]:
    area = tomllib.loads(path.read_text())
    for entry in area["guard"]:
        known = {"entry": str(path.relative_to(ROOT)), "area": area["area"], "tests": tuple(entry["tests"])}
        yield Guard(**{**entry, **known})
