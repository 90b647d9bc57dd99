"""Which faults are on, and whether one strikes now. The settings survive a restart."""

import json
import random
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .database import transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS controls (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
# Field of a fault: lowest value, highest value, whole numbers only.
LIMITS: dict[str, tuple[int, int, bool]] = {
    "rate": (0, 1, False),
    "count": (0, 1_000_000, True),
    "seconds": (0, 600, False),
}
Setting = dict[str, Any]


class UnusableSetting(ValueError):
    """The message says which setting is invalid."""


@dataclass(frozen=True)
class Fault:
    """`seconds` is the default duration, None where a fault has none; without `has_rate` it strikes by count only."""

    name: str
    effect: str
    has_rate: bool = True
    seconds: float | None = None

    def off(self) -> Setting:
        rate = {"rate": 0.0} if self.has_rate else {}
        seconds = {} if self.seconds is None else {"seconds": self.seconds}
        return {**rate, "count": 0, **seconds, "struck": 0}


class Faults:
    def __init__(self, database: sqlite3.Connection, known: Iterable[Fault]) -> None:
        self.database = database
        self.known = {fault.name: fault for fault in known}
        saved = {row["name"]: json.loads(row["value"]) for row in database.execute("SELECT * FROM controls")}
        self.settings = {name: saved.get(name, fault.off()) for name, fault in self.known.items()}
        self.seed: int | None = saved.get("seed")
        self._roll_dice_anew()

    def strikes(self, name: str, demanded: str = "") -> bool:
        """Return whether the fault strikes now; `demanded` is the request's own comma-separated list of faults."""
        setting = self.settings[name]
        struck = name in demanded.replace(" ", "").split(",")
        if not struck and setting["count"] > 0:
            setting["count"] -= 1
            struck = True
        if not struck and setting.get("rate", 0) > 0:
            struck = self.dice[name].random() < setting["rate"]
        if struck:
            setting["struck"] += 1
            self._save({name: setting})
        return struck

    def seconds(self, name: str) -> float:
        return float(self.settings[name]["seconds"])

    def change(self, wanted: dict[str, Any]) -> None:
        """Change one fault's rate, count or seconds, or the seed, or both. Raises `UnusableSetting`."""
        wanted = dict(wanted)
        name, seeded = wanted.pop("fault", None), "seed" in wanted
        seed = _checked_seed(wanted.pop("seed", self.seed))
        changed = {} if name is None and not wanted else {str(name): self._changed(name, wanted)}
        self._save({**changed, "seed": seed})
        self.settings.update(changed)
        self.seed = seed
        if seeded:
            self._roll_dice_anew()

    def reset(self) -> None:
        """Switch all faults off; reset the seed and the counters."""
        with transaction(self.database):
            self.database.execute("DELETE FROM controls")
        self.settings = {name: fault.off() for name, fault in self.known.items()}
        self.seed = None
        self._roll_dice_anew()

    def state(self) -> dict[str, Any]:
        return {"seed": self.seed, "faults": self.settings}

    def switched_on(self) -> list[str]:
        return [name for name, setting in self.settings.items() if setting["count"] or setting.get("rate")]

    def _roll_dice_anew(self) -> None:
        # Each fault has its own random generator, so that switching one on does not change when the others strike.
        start = random.randrange(2**32) if self.seed is None else self.seed  # noqa: S311 - chance, not secrecy
        self.dice = {name: random.Random(f"{start}:{name}") for name in self.known}  # noqa: S311

    def _changed(self, name: object, fields: dict[str, Any]) -> Setting:
        if name not in self.known:
            raise UnusableSetting(f"There is no fault {name!r}; there are: {', '.join(self.known)}.")
        usable = self.known[str(name)].off().keys() & LIMITS.keys()
        if extra := fields.keys() - usable:
            raise UnusableSetting(f"{name} has no {', '.join(sorted(extra))}; it has {', '.join(sorted(usable))}.")
        return self.settings[str(name)] | {field: _checked(field, value) for field, value in fields.items()}

    def _save(self, values: dict[str, Any]) -> None:
        rows = [(name, json.dumps(value)) for name, value in values.items()]
        with transaction(self.database):
            self.database.executemany("INSERT OR REPLACE INTO controls VALUES (?, ?)", rows)


def _checked(field: str, value: object) -> float:
    low, high, whole = LIMITS[field]
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise UnusableSetting(f"The {field} must be {kind} from {low} to {high}.")
    return value


def _checked_seed(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise UnusableSetting("The seed must be a whole number, or null for a random one.")
