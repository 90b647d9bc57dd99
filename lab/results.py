"""The numbers of the last run of each side, which the documentation shows."""

import fcntl
import json
from pathlib import Path
from typing import Any

from lab.arena import Arena

FILE = Path(__file__).with_name("results.json")


def known() -> dict[str, dict[str, dict[str, float]]]:
    """Return for each experiment the numbers of each side."""
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def note(slug: str, side: str, lab: Arena) -> None:
    """Write down what was seen."""
    with FILE.with_suffix(".lock").open("a") as lock:
        # Experiments may run side by side.
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = known()
        found.setdefault(slug, {})[side] = {name: round(number, 1) for name, number in lab.numbers.items()}
        FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
