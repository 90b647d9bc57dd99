"""Draws runs of tasks as a waterfall: web, queue, worker, and the round trips outside, in milliseconds."""

import inspect
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from celery import current_app
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from .models import Run
from .readers import may_look

# Runs that are further apart are drawn on a time line of their own.
PAUSE = timedelta(seconds=30)
WIDTH = 1000
# So that the shortest is seen.
THINNEST = 4


class Bar(NamedTuple):
    x: float
    width: float
    kind: str


@dataclass
class Line:
    """A line of the picture; `waited` and `ran` are milliseconds, None where there was no queue."""

    name: str
    kind: str
    began: datetime
    ended: datetime
    queued: datetime | None = None
    run: Run | None = None
    failed: bool = False
    bars: list[Bar] = field(default_factory=list)

    @property
    def starts(self) -> datetime:
        return self.queued or self.began

    @property
    def waited(self) -> float | None:
        return None if self.queued is None else milliseconds(self.began - self.queued)

    @property
    def ran(self) -> float:
        return milliseconds(self.ended - self.began)

    @property
    def code(self) -> str:
        return source_of(self.run.task) if self.run else ""


class Flow(NamedTuple):
    """Lines that belong together, from the click, or the first message, to the last end."""

    began: datetime
    milliseconds: float
    lines: list[Line]

    @property
    def traces(self) -> list[str]:
        """The ids of its traces in OpenTelemetry, in the order of their first runs."""
        return list(dict.fromkeys(line.run.trace_id for line in self.lines if line.run and line.run.trace_id))


def milliseconds(duration: timedelta) -> float:
    return duration / timedelta(milliseconds=1)


def flows(runs: Sequence[Run], labels: Collection[str]) -> list[Flow]:
    """Return the flows of these runs, oldest first; of round trips, those for rows with these labels."""
    return [drawn(part, labels) for part in parts(runs)]


def parts(runs: Sequence[Run]) -> Iterator[list[Run]]:
    part: list[Run] = []
    for run in runs:
        if part and begun(run) - max(each.ended_at for each in part) > PAUSE:
            yield part
            part = []
        part.append(run)
    if part:
        yield part


def begun(run: Run) -> datetime:
    return run.clicked_at if run.clicked_at and run.clicked_at <= run.sent_at else run.sent_at


def drawn(runs: Sequence[Run], labels: Collection[str]) -> Flow:
    lines = [line for run in runs for line in lines_of(run, labels)]
    # Several messages of one click have one line of the web.
    seen: set[str] = set()
    lines = [line for line in lines if line.kind != "web" or not (line.name in seen or seen.add(line.name))]  # type: ignore[func-returns-value]
    lines.sort(key=lambda line: line.starts)
    start, end = min(line.starts for line in lines), max(line.ended for line in lines)
    scale = WIDTH / max(milliseconds(end - start), 1)
    for line in lines:
        line.bars = bars_of(line, start, scale)
    return Flow(start, milliseconds(end - start), lines)


def lines_of(run: Run, labels: Collection[str]) -> Iterator[Line]:
    if run.clicked_at and run.clicked_at <= run.sent_at:
        yield Line(run.path, "web", run.clicked_at, run.sent_at)
    yield Line(run.task, "run", run.started_at, run.ended_at, run.sent_at, run, run.state == "FAILURE")
    for what, about, at, duration, failed in run.calls:
        if not about or about in labels:
            began = datetime.fromtimestamp(at, run.started_at.tzinfo)
            yield Line(what, "call", began, began + timedelta(milliseconds=duration), failed=failed)


def bars_of(line: Line, start: datetime, scale: float) -> list[Bar]:
    found = [Bar(milliseconds(line.began - start) * scale, max(line.ran * scale, THINNEST), line.kind)]
    if line.queued:
        found.insert(0, Bar(milliseconds(line.queued - start) * scale, (line.waited or 0) * scale, "wait"))
    return [Bar(round(min(bar.x, WIDTH - THINNEST), 1), round(bar.width, 1), bar.kind) for bar in found]


def source_of(task: str) -> str:
    """Return file and line of the task's function; empty for one of Celery's own, and for one that is not known."""
    known = current_app.tasks.get(task)
    code = getattr(inspect.unwrap(known.run), "__code__", None) if known else None
    if code is None:
        return ""
    path = Path(code.co_filename)
    # A virtual environment may stand inside the project.
    is_ours = path.is_relative_to(settings.BASE_DIR) and "site-packages" not in path.parts
    return f"{path.relative_to(settings.BASE_DIR)}:{code.co_firstlineno}" if is_ours else ""


def addresses(request: HttpRequest) -> dict[str, str]:
    """Return the beginnings of the addresses of a run, by its task's id, at the places that this person may enter."""
    places = {}
    if request.user.is_staff and request.user.has_perm("django_celery_results.view_taskresult"):
        places["Result"] = f"{reverse('admin:django_celery_results_taskresult_changelist')}?q="
    if request.user.has_perm("myproject.use_flower"):
        places["Flower"] = f"{settings.FLOWER_URL}/task/"
    return places


def answer(
    request: HttpRequest, labels: Iterable[str], *, title: str, back: str, is_open: bool, **links: str
) -> HttpResponse:
    """Show what ran for the rows with these labels: a page, or the part of one that htmx asks for."""
    if not may_look(request):
        raise PermissionDenied
    labels = set(labels)
    context = {
        "flows": flows(list(Run.objects.concerning(labels)), labels),
        "title": title,
        "back": back,
        "is_open": is_open,
        "links": links,
        "addresses": addresses(request),
    }
    return render(request, "behind/_waterfall.html" if request.htmx else "behind/page.html", context)  # type: ignore[attr-defined]
