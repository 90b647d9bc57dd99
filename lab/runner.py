"""Runs experiments one after the other, and tells of them in the terminal and in a file."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command

from lab import results
from lab.arena import Arena
from lab.experiments import EXPERIMENTS
from myproject import embedded
from myproject.processes import created_at

# However an experiment hangs, it ends.
SECONDS = 180


class Progress:
    """The state of a run, in a file that is always whole."""

    def __init__(self, path: Path | None, slug: str) -> None:
        self.path = path
        self.state: dict[str, Any] = {"slug": slug, "pid": os.getpid(), "since": created_at(os.getpid()), "sides": {}}

    def write(self, **fields: Any) -> None:
        self.state |= {"at": time.time(), **fields}
        if self.path:
            fresh = self.path.with_suffix(".new")
            fresh.write_text(json.dumps(self.state))
            fresh.replace(self.path)

    def side(self, name: str, **fields: Any) -> None:
        self.state["sides"].setdefault(name, {}).update(fields)
        self.write()


def list_all() -> int:
    width = max(map(len, EXPERIMENTS))
    for slug, each in EXPERIMENTS.items():
        sys.stdout.write(f"{slug.ljust(width)}  {each.title}\n")
    return 0


def run(slugs: list[str], home: Path, path: Path | None, watch: int, record: bool = False) -> int:
    """Run them; return how many claims did not show."""
    if unknown := [slug for slug in slugs if slug not in EXPERIMENTS and slug != "all"]:
        sys.stderr.write(f"lab: there is no experiment {', '.join(unknown)}; `python -m lab` lists them.\n")
        return 1
    chosen = list(EXPERIMENTS) if "all" in slugs else slugs
    progress = Progress(path, chosen[0])
    progress.write(state="starting")
    if watch:
        threading.Thread(target=leave_with, args=(watch,), daemon=True).start()
    try:
        with ExitStack() as stack:
            # One run at a time: the kernel drops the lock with the process that holds it.
            stack.callback(os.close, embedded.lock(home / "run.lock", "The lab"))
            arena = stack.enter_context(opened(home, stack))
            broken = sum(run_one(slug, arena, progress, record) for slug in chosen)
    except Exception as error:
        progress.write(state="failed", error=str(error) or type(error).__name__)
        raise
    progress.write(state="done")
    return broken


def opened(home: Path, stack: ExitStack) -> Arena:
    """Start servers with an empty shop; they keep their tables for the next run."""
    postgres = stack.enter_context(embedded.Postgres(home))
    broker = stack.enter_context(embedded.Redis(home))
    postgres.create_database(str(settings.DATABASES["default"]["NAME"]))
    call_command("migrate", verbosity=0)
    arena = Arena(home, broker)
    arena.also = [server.process.pid for server in (postgres, broker) if server.process]
    return arena


def run_one(slug: str, arena: Arena, progress: Progress, record: bool) -> int:
    """Run both sides, the tutorials' first; return how many claims did not show."""
    progress.state |= {"slug": slug, "sides": {}}
    sys.stdout.write(f"\n{EXPERIMENTS[slug].title} ({slug})\n")
    broken = 0
    for name, side in EXPERIMENTS[slug].sides.items():
        arena.tell = teller(arena, name, progress)
        arena.begin()
        progress.write(state=f"running {name}")
        late = threading.Timer(SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
        late.daemon = True
        late.start()
        try:
            found = side.broken(side.run(arena))
        except Exception as error:
            found = [f"{type(error).__name__}: {error}"]
        late.cancel()
        progress.side(name, broken=found, done=True)
        if record and not found:
            results.note(slug, name, arena)
        told = ", ".join(f"{key} {number:,g}" for key, number in arena.numbers.items())
        sys.stdout.write(f"  {name}: {told}{''.join(f'{chr(10)}    NOT AS TOLD: {words}' for words in found)}\n")
        sys.stdout.flush()
        broken += len(found)
    return broken


def teller(arena: Arena, name: str, progress: Progress) -> Callable[[], None]:
    def tell() -> None:
        steps = [(step.at, step.text) for step in arena.steps]
        progress.side(name, steps=steps, numbers=dict(arena.numbers), seconds=round(arena.elapsed, 1))

    return tell


def leave_with(pid: int) -> None:
    """End this process when the other is gone."""
    since = created_at(pid)
    while since and created_at(pid) == since:
        time.sleep(0.5)
    with suppress(ProcessLookupError):
        os.kill(os.getpid(), signal.SIGTERM)
