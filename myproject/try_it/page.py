"""A page on which staff queue small tasks and watch them run.

A person's task ids are kept in their session: no page accepts a task id, so other people's tasks cannot be read.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from celery import Task, states
from django import forms
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
from myproject.try_it import tasks
from myproject.web.pages import staff_may

KEY = "try_it"
RUNS_KEPT = 10
BURST = 200
# A message that is still waiting by then is lost, or no worker runs: the page stops polling.
FOLLOWED_FOR = timedelta(minutes=10)
QUEUES = [(queue.name, queue.name) for queue in settings.CELERY_TASK_QUEUES]
PILLS = {states.STARTED: "running", states.RETRY: "pending", states.SUCCESS: "succeeded"}
WORDS = {states.STARTED: "Running", states.RETRY: "Waits for its retry", states.SUCCESS: "Succeeded"}


class SampleForm(forms.Form):
    queue = forms.ChoiceField(choices=QUEUES, initial=settings.CELERY_TASK_DEFAULT_QUEUE)

    def calls(self) -> list[dict[str, Any]]:
        """Return the arguments of each task to queue."""
        return [{name: value for name, value in self.cleaned_data.items() if name != "queue"}]


class NumbersForm(SampleForm):
    x = forms.FloatField(label="First number", initial=6, min_value=-1e9, max_value=1e9)
    y = forms.FloatField(label="Second number", initial=7, min_value=-1e9, max_value=1e9)
    field_order = ["x", "y", "queue"]


class WaitForm(SampleForm):
    seconds = forms.IntegerField(initial=5, min_value=1, max_value=tasks.MAX_WAIT)
    field_order = ["seconds", "queue"]


class BurstForm(SampleForm):
    count = forms.IntegerField(label="How many", initial=50, min_value=2, max_value=BURST)
    field_order = ["count", "queue"]

    def calls(self) -> list[dict[str, Any]]:
        return [{"x": number, "y": 1} for number in range(self.cleaned_data["count"])]


@dataclass(frozen=True)
class Sample:
    """One thing to try: what it is called, the task that it queues, and what there is to see."""

    title: str
    task: Task
    form: type[SampleForm]
    shows: str

    @property
    def code(self) -> tuple[str, str]:
        """Return the file and the function of the task."""
        return f"{self.task.__module__.replace('.', '/')}.py", self.task.__name__


SAMPLES = {
    "add": Sample("Add", tasks.add, NumbersForm, "The shortest way through queue, worker and result."),
    "multiply": Sample("Multiply", tasks.multiply, NumbersForm, "A second task, found by its name in the message."),
    "wait": Sample(
        "Take a while",
        tasks.wait,
        WaitForm,
        "Queue several: each occupies one process of a worker, and what comes after them waits.",
    ),
    "fail": Sample(
        "Fail",
        tasks.fail,
        SampleForm,
        "A permanent error: nothing tries it again, and its reason is kept as the result.",
    ),
    "retry": Sample(
        "Fail twice, then succeed",
        tasks.fail_twice,
        SampleForm,
        "A temporary error: the task is queued again after a second or so, then after two, a little off each time.",
    ),
    "burst": Sample(
        "Burst",
        tasks.add,
        BurstForm,
        "Many at once: the queue grows in a moment, and the workers empty it side by side.",
    ),
}


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
    def workers(self) -> list[str]:
        return sorted({result.worker for result in self.results if result.worker})

    @property
    def retries(self) -> int:
        return sum(result.retries for result in self.results)

    @property
    def outcome(self) -> str:
        """What the task returned, or its error; of many, nothing."""
        return self.results[0].outcome if self.count == 1 and self.results else ""


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
    run = Run(name, uuid.uuid4().hex, len(form.calls()), form.cleaned_data["queue"], timezone.now())
    published = publish(run, form.calls())
    if published < run.count:
        messages.error(request, f"The broker does not answer: {published} of {run.count} queued. Try again soon.")
    if published:
        remember(request, replace(run, count=published))
    return redirect("try_it")


def publish(run: Run, calls: list[dict[str, Any]]) -> int:
    """Queue the calls over one connection; return how many the broker took.

    At once and not after the commit: no row is written here, and the page is to say when the broker is away.
    """
    sent: list[str] = []

    def send() -> None:
        with app.producer_or_acquire() as producer:
            for task_id, kwargs in zip(run.ids, calls, strict=True):
                SAMPLES[run.sample].task.apply_async(kwargs=kwargs, task_id=task_id, queue=run.queue, producer=producer)
                sent.append(task_id)

    survive(send, f"A sample of {run.count} tasks")
    return len(sent)


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
        "samples": [
            (name, sample, (bound or {}).get(name) or sample.form(auto_id=f"{name}-%s"))
            for name, sample in SAMPLES.items()
        ],
    }
