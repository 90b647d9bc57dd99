import re
import tomllib
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any

from celery.schedules import crontab
from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils.module_loading import module_has_submodule

from durable.checks.traps import TRAPS, Trap
from durable.schedules import declared
from durable.task import Task
from myproject import settings as settings_module
from myproject.celery import app
from myproject.queues import QUEUES

INTRODUCTION = """\
Each of these checks finds a Celery configuration that fails later, in production. Every management command runs them
first, except those that Django exempts. A worker runs them too, and does not start with an error (E); a warning (W) is
only printed. Run them alone with `manage.py check --tag celery`, and silence one with `SILENCED_SYSTEM_CHECKS`.

- `manage.py check` needs neither broker nor database.
- `manage.py check --database default` also reads the schedules in the database.
- `manage.py check --deploy --database default` also asks Redis for its memory policy.
- W003 is checked when a worker starts, since only a worker knows that it is one.

A check looks at the settings for all tasks first, and at single tasks if those are in order. Celery's own tasks are
left alone. Each check is one function in `durable/checks/traps.py`."""

GUARDS = """\
Each practice that this shop follows, the line that follows it, and the test that turns red when the line is taken out.
`make guards` takes out each of them in turn, in a copy of the code, and fails when no test notices; `make guards
SINCE=origin/main` does so for those that a change touches. The edits are in `tests/guards/`.

The sources are four texts that many people learn from: *S0*, "Using Celery with Django for Asynchronous Tasks" (2024);
*S1*, "Integrating Celery with Django: A Comprehensive Guide" (2024); *S2*, "How to Build Background Tasks with Django
Celery"; *S3*, "First steps with Django" of Celery's own documentation. *Ours* is what none of them names."""


class Command(BaseCommand):
    help = "Write the reference of the documentation from the code; `make docs` runs it."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", nargs="?", type=Path, default=settings.BASE_DIR / "docs" / "reference")

    def handle(self, *args: Any, folder: Path, **options: Any) -> None:
        for write in (tasks, environment, celery_settings, checks, guards):
            (folder / f"{write.__name__}.md").write_text(write())
        for name, page in own_pages().items():
            (folder / name).write_text(page())


def own_pages() -> dict[str, Callable[[], str]]:
    """Return the pages that apps write in their `reference.py`, by the names of their files."""
    modules = [
        import_module(f"{config.name}.reference")
        for config in apps.get_app_configs()
        if module_has_submodule(config.module, "reference")
    ]
    return {name: page for module in modules for name, page in module.PAGES.items()}


def tasks() -> str:
    """Describe each task: what its docstring and its decorator say, its queue, and when it runs."""
    app.loader.import_default_modules()
    ours = sorted(name for name in app.tasks if not name.startswith("celery."))
    queues = "\n".join(f"- *{name}*: {queue.purpose} Worker family: {queue.family}." for name, queue in QUEUES.items())
    counted = f"There are {len(ours)} tasks, in these queues:\n\n{queues}"
    return "\n\n".join(["# Tasks", counted, *(described(app.tasks[name]) for name in ours)]) + "\n"


def described(task: Task) -> str:
    purpose, _, safe = " ".join((task.__doc__ or "").split()).partition(" Safe to repeat: ")
    facts = {
        "Queue": app.amqp.router.route({}, task.name)["queue"].name,
        "Runs": "; ".join(words(s.when) for s in declared().values() if s.task == task.name) or "when it is queued",
        "Time limits": f"{seconds(task.soft_time_limit, 'soft')}, {seconds(task.time_limit, 'hard')}",
        "Retries": f"at most {task.max_retries}",
        "Result": "not stored" if task.ignore_result else "stored",
        "Safe to repeat": safe,
    }
    return "\n".join([f"## {task.name}", "", purpose, "", *(f"- *{name}*: {fact}" for name, fact in facts.items())])


def seconds(own: float | None, kind: str) -> str:
    shared = app.conf.task_soft_time_limit if kind == "soft" else app.conf.task_time_limit
    return f"{own or shared} s {kind}"


def words(when: crontab | timedelta) -> str:
    """Say when a schedule runs."""
    if isinstance(when, timedelta):
        return f"every {when.total_seconds():g} s"
    return f"by the crontab `{when._orig_minute} {when._orig_hour} * * {when._orig_day_of_week}`"


def environment() -> str:
    """Return `.env.example` as a page: a section for each heading, an entry for each variable with its comment."""
    page = [
        "# Environment variables",
        "Every variable there is, with its default on a laptop.",
    ]
    comment: list[str] = []
    for line in (settings.BASE_DIR / ".env.example").read_text().splitlines():
        text = line.removeprefix("#").strip()
        if heading := re.fullmatch(r"--- (.+?) -+", text):
            page.append(f"## {heading[1]}")
        elif variable := re.fullmatch(r"([A-Z][A-Z_]+)=(.*)", text):
            page.append(entry(variable[1], variable[2], comment))
        elif text:
            comment.append(text)
            continue
        comment = []
    return "\n\n".join(page) + "\n"


def celery_settings() -> str:
    """Return Celery's settings as a page: each with the comment above it, which may be about several."""
    page = ["# Celery settings", "They stand in `myproject/settings.py`, each with its reason."]
    code = Path(settings_module.__file__).read_text()
    for comment, block in re.findall(r"((?:^#.*\n)+)((?:^(?![#\n]).*\n)+)", code, re.MULTILINE):
        if names := re.findall(r"\b(CELERY_\w+)(?= = )", block):
            page.append(entry(", ".join(names), "", [line.lstrip("# ") for line in comment.splitlines()]))
    return "\n\n".join(page) + "\n"


def entry(name: str, value: str, comment: list[str]) -> str:
    """Return an entry of a definition list."""
    reason = re.sub(r"([*<])", r"\\\1", " ".join(comment))
    return f"`{name}`{value and f': `{value}`'}\n: {reason}"


def checks() -> str:
    page = ["# Start-up checks", INTRODUCTION, *(described_trap(trap) for trap in sorted(TRAPS))]
    return "\n\n".join(page) + "\n"


def described_trap(trap: Trap) -> str:
    seen = f"\n- *Seen in*: [{trap.seen}](https://github.com/{trap.seen.replace('#', '/issues/')})" if trap.seen else ""
    return f"## {trap.id}\n\n{trap.danger}\n\n- *What to set*: {trap.hint}{seen}"


def guards() -> str:
    """Return the registry of guards as a page: a table for each area."""
    page = ["# Practice, line and test", GUARDS]
    for path in sorted((settings.BASE_DIR / "tests" / "guards").glob("*.toml")):
        area = tomllib.loads(path.read_text())
        rows = ["| practice | source | line | test |", "|---|---|---|---|", *map(guard_row, area["guard"])]
        page += [f"## {area['area']}", "\n".join(rows)]
    return "\n\n".join(page) + "\n"


def guard_row(guard: dict[str, Any]) -> str:
    before, _, _ = (settings.BASE_DIR / guard["file"]).read_text().partition(guard["old"])
    # An edit that begins with lines which stay is about the first that does not.
    kept = next((n for n, (a, b) in enumerate(zip_longest(*map(str.splitlines, edit(guard)))) if a != b), 0)
    line = f"`{guard['file']}:{before.count(chr(10)) + kept + 1}`"
    tests = "<br>".join(f"`{name}`" for name in guard["tests"])
    return f"| {guard['practice']} | {guard['source']} | {line} | {tests} |"


def edit(guard: dict[str, Any]) -> tuple[str, str]:
    return guard["old"], guard["new"]
