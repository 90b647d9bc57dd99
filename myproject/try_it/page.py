"""A page on which staff queue small tasks and watch them run.

A person's task ids are kept in their session: no page accepts a task id, so other people's tasks cannot be read.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from celery import Signature, states
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from durable.task import survive
from myproject.celery import app
from myproject.transport import results
from myproject.transport.results import Result
from myproject.try_it.samples import SAMPLES, SampleForm
from myproject.web.pages import staff_may

KEY = "try_it"
RUNS_KEPT = 20
# Of a run with more tasks, these are drawn.
DRAWN = 24
WIDTH, ROW = 600, 10
# A message that is still waiting by then is lost, or no worker runs: the page stops polling.
FOLLOWED_FOR = timedelta(minutes=10)
PROGRESS = "PROGRESS"
PILLS = {
    states.STARTED: "running",
    PROGRESS: "running",
    states.RETRY: "pending",
    states.SUCCESS: "succeeded",
    states.REVOKED: "cancelled",
}
WORDS = {states.STARTED: "Running", states.RETRY: "Waits for its retry", states.SUCCESS: "Succeeded"}
WORDS |= {PROGRESS: "Running", states.REVOKED: "Revoked"}


@dataclass(frozen=True)
class Run:
    """The tasks that the person queued with one click, and their results so far; `batch` prefixes their ids."""

    sample: str
    batch: str
    count: int
    queue: str
    queued_at: datetime
    results: Sequence[Result] = ()

    @property
    def ids(self) -> list[str]:
        return task_ids(self.batch, self.count)

    @property
    def title(self) -> str:
        return SAMPLES[self.sample].title

    @property
    def finished(self) -> int:
        return sum(result.status in states.READY_STATES for result in self.results)

    @property
    def is_followed(self) -> bool:
        """True while there may be something new soon."""
        return self.finished < self.count and timezone.now() - self.queued_at < FOLLOWED_FOR

    @property
    def state(self) -> tuple[str, str]:
        """Return what to call the state, and its colour."""
        if not self.results:
            return ("Queued", "queued") if self.is_followed else ("Not taken by any worker", "failed")
        if self.count > 1:
            done = self.finished == self.count
            return f"{self.finished} of {self.count} finished", "succeeded" if done else "running"
        status = self.results[0].status
        return WORDS.get(status, "Failed"), PILLS.get(status, "failed")

    @property
    def waited(self) -> timedelta | None:
        """How long it, or the last of many, was queued before a worker took it up for the first time."""
        taken = [result.date_created for result in self.results if result.date_created]
        return positive(max(taken) - self.queued_at) if taken else None

    @property
    def ran(self) -> timedelta | None:
        """How long the last attempt took; of many, all of them together."""
        ran = [
            positive(result.date_done - result.date_started)
            for result in self.results
            if result.status in states.READY_STATES and result.date_done and result.date_started
        ]
        return sum(ran, timedelta()) if ran else None

    @property
    def progress(self) -> tuple[int, int] | None:
        """How far a task says that it is, which alone is in such a state."""
        if self.count > 1 or not self.results or self.results[0].status != PROGRESS:
            return None
        done, _, of = self.results[0].outcome.partition(" of ")
        return (int(done), int(of)) if done.isdecimal() and of.isdecimal() else None

    @property
    def bars(self) -> list["Bar"]:
        """Each task as it is drawn: how long it waited, and ran, from the click on; empty while no times are known."""
        known = [row for row in self.results if row.date_created][:DRAWN]
        ends = [row.date_done or timezone.now() for row in known]
        whole = max([positive(end - self.queued_at) for end in ends], default=timedelta()) or timedelta(seconds=1)
        return [
            bar_of(number, row, self.queued_at, end, whole)
            for number, (row, end) in enumerate(zip(known, ends, strict=True))
        ]

    @property
    def height(self) -> int:
        return len(self.bars) * ROW

    @property
    def workers(self) -> list[str]:
        return sorted({result.worker for result in self.results if result.worker})

    @property
    def retries(self) -> int:
        return sum(result.retries for result in self.results)

    @property
    def outcome(self) -> str:
        """What the task returned, or its error; of many, nothing."""
        return self.results[0].outcome if self.count == 1 and self.results else ""


class Bar(NamedTuple):
    """In units of the drawing; the words are for a pointer that rests on it, and for screen readers."""

    y: int
    waited: str
    start: str
    ran: str
    says: str


def bar_of(number: int, row: Result, queued_at: datetime, end: datetime, whole: timedelta) -> Bar:
    begun = row.date_started or row.date_created or end
    waited, ran = positive(begun - queued_at), positive(end - begun)
    start, length = waited / whole * WIDTH, max(ran / whole * WIDTH, 2)
    says = f"{row.worker or 'a worker'}: waited {waited.total_seconds():.3f} s, ran {ran.total_seconds():.3f} s"
    return Bar(number * ROW, f"{start:.1f}", f"{min(start, WIDTH - 2):.1f}", f"{length:.1f}", says)


def positive(duration: timedelta) -> timedelta:
    """Web, worker and database may be on machines whose clocks differ a little."""
    return max(duration, timedelta())


def task_ids(batch: str, count: int) -> list[str]:
    return [f"{batch}-{number}" for number in range(count)]


@require_safe
@staff_may("myproject.try_tasks")
def page(request: HttpRequest) -> HttpResponse:
    return render(request, "try_it/try_it.html", _context(request))


@require_safe
@staff_may("myproject.try_tasks")
def runs(request: HttpRequest) -> HttpResponse:
    """The part of the page that updates itself."""
    return render(request, "try_it/_runs.html", _context(request))


@require_POST
@staff_may("myproject.try_tasks")
def queue(request: HttpRequest, name: str) -> HttpResponse:
    if name not in SAMPLES:
        raise Http404("There is no such sample.")
    form = SAMPLES[name].form(request.POST, auto_id=f"{name}-%s")
    if not form.is_valid():
        return render(request, "try_it/try_it.html", _context(request, {name: form}), status=422)
    chosen = dict(form.cleaned_data)
    queue_name = chosen.pop("queue")
    parts = SAMPLES[name].parts(chosen)
    # The person is part of the ids, for the channel on which the page hears of them.
    run = Run(name, f"try-{request.user.pk}-{uuid.uuid4().hex}", len(parts), queue_name, timezone.now())
    published = publish(run, parts)
    if published < run.count:
        messages.error(request, f"The broker does not answer: {published} of {run.count} queued. Try again soon.")
    if published:
        remember(request, replace(run, count=published))
    return redirect("try_it")


def publish(run: Run, parts: list[Signature]) -> int:
    """Publish them over one connection; return how many the broker took.

    At once and not after the commit: no row is written here, and the page is to say when the broker is away.
    """
    sample, sent = SAMPLES[run.sample], 0
    for task_id, part in zip(run.ids, parts, strict=True):
        part.set(task_id=task_id, queue=run.queue)
    joined = sample.joined(parts)

    def send() -> None:
        nonlocal sent
        with app.producer_or_acquire() as producer:
            for signature in joined:
                signature.apply_async(producer=producer)
                sent += run.count // len(joined)
        if sample.after:
            sample.after(run.ids)

    survive(send, f"A sample of {run.count} tasks")
    return sent


def remember(request: HttpRequest, run: Run) -> None:
    entry = [run.sample, run.batch, run.count, run.queue, run.queued_at.isoformat()]
    kept = [entry, *request.session.get(KEY, [])]
    request.session[KEY] = kept[:RUNS_KEPT]


def remembered(request: HttpRequest) -> list[Run]:
    """Return this person's runs, the latest first, with the results that there are; makes one query."""
    entries = request.session.get(KEY, [])
    kept = [
        Run(sample, batch, count, queue, datetime.fromisoformat(queued_at))
        for sample, batch, count, queue, queued_at in entries
    ]
    found = results.find([task_id for run in kept for task_id in run.ids])
    return [replace(run, results=[found[pk] for pk in run.ids if pk in found]) for run in kept]


def _context(request: HttpRequest, bound: dict[str, SampleForm] | None = None) -> dict[str, Any]:
    kept = remembered(request)
    return {
        "runs": kept,
        "follow": any(run.is_followed for run in kept),
        # A trigger of that table tells of each result; of those in another store nothing does.
        "are_told": settings.RESULTS_IN_DATABASE,
        "samples": [
            (name, sample, (bound or {}).get(name) or sample.form(auto_id=f"{name}-%s"))
            for name, sample in SAMPLES.items()
        ],
    }
