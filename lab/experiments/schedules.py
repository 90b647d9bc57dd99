"""Beat, and the clock on the wall."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

from celery import schedules
from django.core.management import call_command
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks
from django_celery_beat.schedulers import DatabaseScheduler

from accounts.models import User
from durable.management.commands import sync_schedules
from durable.schedules import Schedule
from lab import rows
from lab.arena import NAIVE, OURS, Arena
from lab.experiment import Numbers, Side, at_least, at_most, exactly, experiment
from lab.naive import mails as naive
from lab.naive import schedules as naive_schedules
from lab.naive.app import app as naive_app
from orders import digests, tasks
from orders.models import Product
from orders.models.digests import DigestQuerySet

PEOPLE = 3
READING = 5


def naive_beat_twice(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    return beat_twice(lab, NAIVE, naive.send_digests.name, "django_celery_beat.schedulers:DatabaseScheduler")


def ours_beat_twice(lab: Arena) -> Numbers:
    lab.common(OURS)
    return beat_twice(lab, "myproject", tasks.send_weekly_digest.name, "myproject.monitoring.beat:Scheduler")


def beat_twice(lab: Arena, app: str, task: str, scheduler: str) -> Numbers:
    people = [rows.person(number) for number in range(PEOPLE)]
    rows.product()
    Product.objects.update(created_at=timezone.now() - timedelta(days=7))
    weekly, _ = IntervalSchedule.objects.get_or_create(every=7, period=IntervalSchedule.DAYS)
    with ExitStack() as stack:
        for number in range(2):
            stack.enter_context(beat(lab, app, scheduler, lab.home / f"lab-beat-{number}.pid"))
        lab.say("Two beats run.")
        last = timezone.now() + timedelta(seconds=READING + 2) - timedelta(days=7)
        PeriodicTask.objects.create(name="The digest", task=task, interval=weekly, last_run_at=last)
        lab.say(f"The digest for {PEOPLE} people is due in a moment.", asked=PEOPLE)
        # A beat that is still starting may miss a change: both read the row before it is due.
        lab.watch(READING, tell_of_change)
        lab.until(lambda: mails_to(lab, people) >= PEOPLE, "the mails")
        lab.watch(8, lambda: {"mailed": mails_to(lab, people)})
    return lab.count(doubled=mails_to(lab, people) - PEOPLE)


@contextmanager
def beat(lab: Arena, app: str, scheduler: str, pid_file: Path) -> Iterator[None]:
    """Run a beat; it writes its file when all is imported."""
    options = ["--scheduler", scheduler, "--max-interval", "1", "--pidfile", str(pid_file)]
    pid_file.unlink(missing_ok=True)
    process = lab.start("-m", "celery", "-A", app, "--quiet", "beat", *options)
    try:
        lab.until(pid_file.exists, "beat")
        yield
    finally:
        process.terminate()
        process.wait()


def tell_of_change() -> dict[str, float]:
    """Let each beat read its schedules again."""
    PeriodicTasks.update_changed()
    return {}


def mails_to(lab: Arena, people: list[User]) -> int:
    return sum(len(lab.mails(person.email)) for person in people)


experiment(
    "two-beats",
    "Two beats",
    practice="Start beat with each worker (-B), or in each container.",
    fault="Two beats run side by side when the digest is due.",
    naive=Side(
        naive_beat_twice,
        (naive.send_digests,),
        "send_mail(",
        {"asked": exactly(PEOPLE), "mailed": at_least(PEOPLE + 1), "doubled": at_least(1)},
    ),
    ours=Side(
        ours_beat_twice,
        (tasks.send_weekly_digest, digests.plan, DigestQuerySet.plan),
        "cursor.execute(PLAN",
        {"asked": exactly(PEOPLE), "mailed": exactly(PEOPLE), "doubled": exactly(0)},
    ),
    why="Each beat queues what is due. Ours runs one beat; and when there are two, a person has one row for a week, "
    "and a row has one mail.",
    answers=("orders/models/digests.py · PLAN", "orders/digests.py · send_chunk"),
    test="tests/orders/test_digests.py",
    docs="tour/schedules.md",
)

BERLIN = ZoneInfo("Europe/Berlin")
# The night in which the hour from two to three comes twice.
NIGHT = datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 25, 4, tzinfo=UTC)


def runs(when: Any) -> Iterator[datetime]:
    """Yield when beat would run it, if it looked each minute."""
    now, end = NIGHT
    last = now
    while now < end:
        local = now.astimezone(BERLIN)
        with patch.object(when, "nowfun", lambda moment=local: moment):
            if when.is_due(last.astimezone(BERLIN)).is_due:
                yield now
                last = now
        now += timedelta(minutes=1)


def silence(lab: Arena, when: Any) -> Numbers:
    found = list(runs(when))
    longest = max(after - before for before, after in pairwise(found))
    lab.say(f"In six hours it ran {len(found)} times.", runs=len(found))
    return lab.count(minutes=longest.total_seconds() / 60)


def naive_clock(lab: Arena) -> Numbers:
    lab.say("The night of 25 October 2026 in Berlin: the clocks are set back by an hour.")
    return silence(lab, naive_schedules.each_quarter())


def ours_clock(lab: Arena) -> Numbers:
    lab.say("The night of 25 October 2026 in Berlin: the clocks are set back by an hour.")
    return silence(lab, schedules.schedule(timedelta(minutes=15)))


experiment(
    "crontab-in-the-autumn",
    "A crontab each quarter of an hour, across daylight saving",
    practice="Write frequent schedules as a crontab, in local time.",
    fault="The clocks are set back: the hour from two to three comes twice.",
    naive=Side(naive_clock, (naive_schedules.each_quarter,), "TzAwareCrontab(minute", {"minutes": at_least(60)}),
    ours=Side(ours_clock, (Schedule,), "when: crontab | timedelta", {"minutes": at_most(16)}),
    why="A crontab looks at the clock on the wall, and has done the second hour already. Ours declares what is "
    "frequent as an interval, which knows no hours, and as a crontab only what has a time of day.",
    answers=("durable/schedules.py · Schedule", "orders/schedules.py · SCHEDULES"),
    test="tests/test_schedules.py",
    docs="tour/schedules.md",
)

EDITED = 600


def naive_edited(lab: Arena) -> Numbers:
    name = next(iter(naive_schedules.CELERY_BEAT_SCHEDULE))
    start_naive_beat()
    return edit(lab, name, start_naive_beat)


def start_naive_beat() -> None:
    """Do what beat does at its start."""
    naive_app.conf.beat_schedule = naive_schedules.CELERY_BEAT_SCHEDULE
    DatabaseScheduler(app=naive_app, lazy=True).setup_schedule()


def ours_edited(lab: Arena) -> Numbers:
    def deploy() -> None:
        call_command("sync_schedules", verbosity=0, stdout=StringIO())

    deploy()
    return edit(lab, "Check pending orders", deploy)


def edit(lab: Arena, name: str, deploy: Any) -> Numbers:
    row = PeriodicTask.objects.get(name=name)
    lab.say(f"“{name}” runs every {row.interval.every} seconds.")
    row.interval, _ = IntervalSchedule.objects.get_or_create(every=EDITED, period=IntervalSchedule.SECONDS)
    row.save()
    lab.say(f"Somebody sets {EDITED} in the admin. Then comes a deploy.")
    deploy()
    return lab.count(seconds=PeriodicTask.objects.get(name=name).interval.every)


experiment(
    "schedule-written-over",
    "CELERY_BEAT_SCHEDULE together with the database scheduler",
    practice="Declare schedules in the settings, and edit them in the admin.",
    fault=f"Somebody edits a schedule in the admin, to {EDITED} seconds; then beat is started again.",
    naive=Side(naive_edited, (naive_schedules.schedule,), '"schedule"', {"seconds": at_most(EDITED - 1)}),
    ours=Side(ours_edited, (sync_schedules.sync,), "if written != fingerprint(row)", {"seconds": exactly(EDITED)}),
    why="At each start beat writes the entries of the settings over what was edited, and what was removed from the "
    "code runs on. Ours writes a schedule only where it still is as ours was written last.",
    answers=("orders/schedules.py · SCHEDULES", "durable/management/commands/sync_schedules.py · sync"),
    test="tests/test_schedules.py",
    docs="tour/schedules.md",
)
