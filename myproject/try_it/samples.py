"""What there is to try: forms, what each of them queues, when to use it, and what it does not promise."""

import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Signature, Task, chain, chord, group
from django import forms
from django.conf import settings

from myproject.celery import app
from myproject.try_it import tasks

MOST = 200
QUEUES = [(queue.name, queue.name) for queue in settings.CELERY_TASK_QUEUES]
CHUNK = 10
# Redis serves 0 first, RabbitMQ 9, and only on queues that were declared with priorities.
HIGH, LOW = (9, 0) if settings.CELERY_BROKER_URL.startswith("amqp") else (0, 9)
Asked = dict[str, Any]


class SampleForm(forms.Form):
    queue = forms.ChoiceField(choices=QUEUES, initial=settings.CELERY_TASK_DEFAULT_QUEUE)
    field_order = ["x", "y", "seconds", "count", "queue"]


class NumbersForm(SampleForm):
    x = forms.FloatField(label="First number", initial=6, min_value=-1e9, max_value=1e9)
    y = forms.FloatField(label="Second number", initial=7, min_value=-1e9, max_value=1e9)


class WaitForm(SampleForm):
    seconds = forms.IntegerField(initial=5, min_value=1, max_value=tasks.MAX_WAIT)


class CountForm(SampleForm):
    count = forms.IntegerField(label="How many", initial=50, min_value=2, max_value=MOST)


class FewForm(SampleForm):
    count = forms.IntegerField(label="How many", initial=6, min_value=2, max_value=tasks.MAX_WAIT)


def one(task: Task, **options: Any) -> Callable[[Asked], list[Signature]]:
    """Queue the task once, with what the form has."""
    return lambda asked: [task.s(**asked).set(**options)]


def burst(asked: Asked) -> list[Signature]:
    return [tasks.add.s(x=number, y=1) for number in range(asked["count"])]


def side_by_side(asked: Asked) -> list[Signature]:
    return [tasks.wait.s(seconds=1) for _ in range(asked["count"])]


def steps(asked: Asked) -> list[Signature]:
    return [tasks.add.s(asked["x"], asked["y"]), tasks.multiply.s(10)]


def parts_and_body(asked: Asked) -> list[Signature]:
    return [*(tasks.add.s(number, number) for number in range(asked["count"])), tasks.total.s()]


def mapped(asked: Asked) -> list[Signature]:
    return [tasks.add.starmap(pairs(asked["count"]))]


def chunked(asked: Asked) -> list[Signature]:
    return list(tasks.add.chunks(pairs(asked["count"]), CHUNK).group().tasks)


def pairs(count: int) -> list[tuple[int, int]]:
    return [(number, number) for number in range(count)]


def prioritised(asked: Asked) -> list[Signature]:
    """The last third is urgent."""
    count = asked["count"]
    return [tasks.wait.s(seconds=1).set(priority=HIGH if number >= count * 2 // 3 else LOW) for number in range(count)]


def later(asked: Asked) -> list[Signature]:
    return [tasks.add.s(x=1, y=1).set(countdown=asked["seconds"])]


def too_late(asked: Asked) -> list[Signature]:
    return [tasks.add.s(x=1, y=1).set(countdown=asked["seconds"] + 2, expires=asked["seconds"])]


def alone(signatures: Sequence[Signature]) -> Sequence[Signature]:
    """Publish each by itself."""
    return signatures


def revoke(ids: Sequence[str]) -> None:
    app.control.revoke(ids)


@dataclass(frozen=True)
class Sample:
    """One thing to try: what it is called, the task that it queues, and what there is to see.

    `parts` makes the signatures, one for each result; `joined` makes of them what is published.
    """

    title: str
    task: Task
    form: type[SampleForm]
    shows: str
    parts: Callable[[Asked], list[Signature]]
    use: str = ""
    joined: Callable[[list[Signature]], Sequence[Signature]] = alone
    after: Callable[[Sequence[str]], None] | None = None

    @property
    def code(self) -> tuple[str, str]:
        """Return the file and the function of the task."""
        return f"{self.task.__module__.replace('.', '/')}.py", self.task.__name__

    @property
    def source(self) -> str:
        """The function of the task, and how this page calls it."""
        own = "" if self.parts.__name__ == "<lambda>" else inspect.getsource(self.parts)
        return textwrap.dedent(f"{inspect.getsource(self.task.run)}\n{own}").strip()


SAMPLES = {
    "add": Sample("Add", tasks.add, NumbersForm, "The shortest way through queue, worker and result.", one(tasks.add)),
    "multiply": Sample(
        "Multiply",
        tasks.multiply,
        NumbersForm,
        "A second task, found by its name in the message.",
        one(tasks.multiply),
    ),
    "wait": Sample(
        "Take a while",
        tasks.wait,
        WaitForm,
        "Queue several: each occupies one process of a worker, and what comes after them waits.",
        one(tasks.wait),
    ),
    "progress": Sample(
        "Report progress",
        tasks.progress,
        FewForm,
        "A task writes how far it is by update_state, and this page draws it.",
        lambda asked: [tasks.progress.s(steps=asked["count"])],
        "For work whose end somebody waits for. It is a state of Celery's: the next one overwrites it, and a repeated "
        "task begins at zero. Reports of the shop count on their row instead.",
    ),
    "fail": Sample(
        "Fail",
        tasks.fail,
        SampleForm,
        "A permanent error: nothing tries it again, and its reason is kept as the result.",
        one(tasks.fail),
    ),
    "retry": Sample(
        "Fail twice, then succeed",
        tasks.fail_twice,
        SampleForm,
        "A temporary error: the task is queued again after a second or so, then after two, a little off each time.",
        one(tasks.fail_twice),
    ),
    "burst": Sample(
        "Burst",
        tasks.add,
        CountForm,
        "Many at once: the queue grows in a moment, and the workers empty it side by side.",
        burst,
    ),
    "group": Sample(
        "Group",
        tasks.wait,
        FewForm,
        "Tasks that run side by side, as far as there are processes, with one result for all.",
        side_by_side,
        "For parts that do not need each other. It promises no order, and does not undo the others when one fails.",
        lambda parts: [group(parts)],
    ),
    "chain": Sample(
        "Chain",
        tasks.add,
        NumbersForm,
        "The second task gets the result of the first: the sum, times ten.",
        steps,
        "For steps that need the one before. If a worker dies between two of them, nothing starts the second: keep "
        "the step on a row that a sweep reads when it must not be lost.",
        lambda parts: [chain(*parts)],
    ),
    "chord": Sample(
        "Chord",
        tasks.add,
        FewForm,
        "A group, and a body that runs when all its parts have ended: the sum of them all.",
        parts_and_body,
        "For a result that needs all parts. It does not promise its body: in this store of results a part that is "
        "delivered twice is counted twice, and the body is lost or starts too early. Month-end packs count rows.",
        lambda parts: [chord(parts[:-1], parts[-1])],
    ),
    "map": Sample(
        "Map",
        tasks.add,
        CountForm,
        "One message, one task, which calls the function for each pair in turn (starmap).",
        mapped,
        "For calls that are too short for a message each. Nothing runs side by side, and one error ends all of it.",
    ),
    "chunks": Sample(
        "Chunks",
        tasks.add,
        CountForm,
        f"The same, cut into messages of {CHUNK} calls each.",
        chunked,
        "Between a message for each call and one for all. A chunk is repeated as a whole.",
        lambda parts: [group(parts)],
    ),
    "priority": Sample(
        "Priority",
        tasks.wait,
        FewForm,
        "The last third of these is urgent, and overtakes what still waits.",
        prioritised,
        "Only among what waits in the same queue: what a worker has taken goes on. Redis keeps four levels, RabbitMQ "
        "needs a queue that was declared with them. The shop has queues by kind of work instead.",
    ),
    "countdown": Sample(
        "Countdown",
        tasks.add,
        WaitForm,
        "A worker takes the message at once, and holds it until its time has come (ETA).",
        later,
        "For seconds or minutes. It is no calendar: the worker keeps it in memory, and what is longer than the "
        "visibility timeout of Redis comes twice. What is due tomorrow belongs on a row.",
    ),
    "expiry": Sample(
        "Expire",
        tasks.add,
        WaitForm,
        "This one may not start for two seconds longer than it is valid: it is revoked instead of run.",
        too_late,
        "For what is worthless when it is late, as a sweep that the next one replaces. It stops nothing that runs.",
    ),
    "revoke": Sample(
        "Revoke",
        tasks.add,
        WaitForm,
        "It is queued for later, and revoked at once: the workers are told to leave it out.",
        later,
        "For work that has not begun. The workers remember it in memory only, and a worker that starts later does not "
        "know of it. Reports are cancelled on their row, which every worker reads.",
        after=revoke,
    ),
}
