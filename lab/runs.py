"""The run that the page shows: a process of its own, which writes what it sees into a file."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from lab.experiment import EXPERIMENTS, WORDS, Claim, Experiment
from myproject.processes import created_at, is_alive

HOME = settings.VAR_DIR / "lab"
FILE = HOME / "progress.json"
ENDED = ("done", "failed")
NAMES = {"naive": "The tutorials’ way", "ours": "This shop’s way"}
# The runner may end, and be collected, after the request that has started it.
_runners: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Number:
    """A number of a side beside what the experiment says that it must be."""

    name: str
    found: float | None
    claim: Claim | None

    @property
    def is_as_told(self) -> bool:
        return self.claim is None or (self.found is not None and self.claim.holds(self.found))


@dataclass(frozen=True)
class Lane:
    """One side of a run, as far as it has come."""

    title: str
    is_ours: bool
    steps: list[tuple[float, str]]
    numbers: list[Number]
    broken: list[str]
    is_done: bool
    is_running: bool


@dataclass(frozen=True)
class Run:
    """The latest run, whatever it is of."""

    slug: str = ""
    state: str = ""
    error: str = ""
    pid: int = 0
    since: float = 0
    sides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_going(self) -> bool:
        return bool(self.slug) and self.state not in ENDED and self.is_alive

    @property
    def is_alive(self) -> bool:
        # One that was killed stays as a zombie until its parent asks for it.
        return is_alive(self.pid) and created_at(self.pid) == self.since

    @property
    def was_cut_off(self) -> bool:
        """True if it was stopped before its end, with the shop for example."""
        return bool(self.slug) and self.state not in ENDED and not self.is_alive

    @property
    def is_whole(self) -> bool:
        return self.state == "done"

    @property
    def is_as_told(self) -> bool:
        return self.is_whole and not any(side.get("broken") for side in self.sides.values())

    @property
    def title(self) -> str:
        return EXPERIMENTS[self.slug].title if self.slug in EXPERIMENTS else ""


def latest() -> Run:
    try:
        found = json.loads(FILE.read_text())
    except (OSError, ValueError):
        return Run()
    return Run(**{name: found[name] for name in Run.__dataclass_fields__ if name in found})


def lanes(chosen: Experiment, run: Run) -> list[Lane]:
    """Return both sides of the experiment, with what the run has seen if it is one of this experiment."""
    sides = run.sides if run.slug == chosen.slug else {}
    return [lane(name, chosen, sides.get(name, {}), run) for name in chosen.sides]


def lane(name: str, chosen: Experiment, seen: dict[str, Any], run: Run) -> Lane:
    claims, found = chosen.sides[name].claims, seen.get("numbers", {})
    numbers = [Number(WORDS[key], found.get(key), claims.get(key)) for key in WORDS if key in claims or key in found]
    is_done = bool(seen.get("done"))
    running = run.is_going and bool(seen) and not is_done
    return Lane(NAMES[name], name == "ours", seen.get("steps", []), numbers, seen.get("broken", []), is_done, running)


def start(slug: str) -> bool:
    """Start a run of the experiment; False while another one is going."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "start.lock").open("a") as lock, (HOME / "runner.log").open("ab") as log:
        # Two clicks at once start one run.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _runners[:] = [each for each in _runners if each.poll() is None]
        if latest().is_going:
            return False
        # It ends with the process that all of the web server's have in common, and with this one's group.
        command = [sys.executable, "-m", "lab", slug, "--progress", str(FILE), "--watch", str(os.getppid())]
        runner = subprocess.Popen(command, cwd=settings.BASE_DIR, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _runners.append(runner)
        state = {"slug": slug, "pid": runner.pid, "since": created_at(runner.pid), "state": "starting", "sides": {}}
        FILE.write_text(json.dumps(state))
    return True
