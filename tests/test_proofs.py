"""Each task has its proofs: a test that repeats it, one with a real worker, and a page that shows what it did.

A test says so itself, by the marker `proves`; CONTRIBUTING.md shows how.
"""

import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from django.urls import Resolver404, resolve
from django.utils import timezone
from django_celery_results.models import TaskResult

from accounts.models import User
from durable.schedules import declared
from myproject import tasks
from myproject.celery import app, debug_task
from orders import services
from orders.models import Status
from orders.tasks import process_order, refund_order
from tests.broker import Broker
from tests.factories import make_user, place_order
from tests.shop import Shop, wait_for
from tests.test_places import make_rows, walk

pytest_plugins = ["tests.broker"]

# By hand only: `celery call`.
SHOWN_NOWHERE = {debug_task.name}


def marks() -> Iterator[tuple[Callable[..., Any], pytest.Mark]]:
    """Yield each test that has the marker, whichever tests run now."""
    for path in sorted((settings.BASE_DIR / "tests").rglob("test_*.py")):
        module = import_module(".".join(path.relative_to(settings.BASE_DIR).with_suffix("").parts))
        for test in vars(module).values():
            for mark in getattr(test, "pytestmark", []) if inspect.isfunction(test) else []:
                if mark.name == "proves":
                    yield test, mark


def proofs() -> dict[str, dict[str, set[str]]]:
    """Return what is proved of each task, with the names of the tests, or of the page."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for test, mark in marks():
        *names, what = mark.args
        for name in names:
            found[name][what].add(test.__name__)
            if "page" in mark.kwargs:
                found[name]["page"].add(mark.kwargs["page"])
            if what == "worker" and "shop" not in inspect.signature(test).parameters:
                found[name]["no worker"].add(test.__name__)
    return found


def missing(name: str, proved: dict[str, set[str]], pages: set[str]) -> Iterator[str]:
    """Say what is still to be done for a task."""
    if "Safe to repeat:" not in (app.tasks[name].__doc__ or ""):
        yield 'its docstring does not end with "Safe to repeat: …"'
    if not proved["twice"]:
        yield f'no test runs it twice; mark one with @pytest.mark.proves("{name}", "twice", page="…")'
    if not proved["worker"]:
        yield f'no test has a real worker run it; mark one with @pytest.mark.proves("{name}", "worker")'
    for test in proved["no worker"]:
        yield f"{test} is marked as its test with a real worker, but does not use the fixture `shop`"
    scheduled = name in {schedule.task for schedule in declared().values()}
    if not (proved["page"] or scheduled or name in SHOWN_NOWHERE):
        yield 'no page shows what it did: name the view by page="…" on the test that runs it twice'
    for page in proved["page"] - pages:
        yield f"its page {page} is more than two links away from the dashboard"


def view_names(paths: set[str]) -> Iterator[str]:
    for path in paths:
        try:
            yield resolve(path).view_name
        except Resolver404:
            continue


def test_nothing_is_missing_of_any_task(login: Callable[[User], Client], staff: User) -> None:
    call_command("sync_schedules")
    make_rows(staff)
    proved = proofs()
    pages = set(view_names(walk(login(staff), "/dashboard/")))
    app.loader.import_default_modules()
    ours = {name for name in app.tasks if not name.startswith("celery.")}

    faults = [f"{name}: {fault}" for name in sorted(ours) for fault in missing(name, proved[name], pages)]
    faults += [f"{name}: a test proves it, but there is no such task" for name in sorted(set(proved) - ours)]

    assert not faults, "\n".join(["", *faults])


@pytest.mark.parametrize("target", ["attack", "faults", "lab", "looks", "operations"])
def test_slow_target_reads_the_folder_that_has_its_tests(target: str) -> None:
    tests = (settings.BASE_DIR / "tests").rglob("test_*.py")

    folders = {path.parent.name for path in tests if f"mark.{target}" in path.read_text()}

    assert folders == {target}


# --- What no other test proves ---


@pytest.mark.proves("myproject.tasks.heartbeat", "myproject.celery.debug_task", "twice")
@pytest.mark.django_db
def test_tasks_that_change_nothing_may_run_twice(broker: Broker) -> None:
    for task in (tasks.heartbeat, debug_task):
        assert [task.apply().state for _ in range(2)] == ["SUCCESS"] * 2

    assert broker.messages() == []
    assert not TaskResult.objects.exists()


@pytest.mark.proves(
    "orders.tasks.refund_order",
    "accounts.tasks.send_welcome_email",
    "myproject.tasks.heartbeat",
    "myproject.celery.debug_task",
    "worker",
)
def test_worker_does_what_no_other_test_asks_of_it(shop: Shop) -> None:
    order, reader = place_order(), make_user(mail_due_at=timezone.now())
    process_order.delay(order_id=order.pk)
    wait_for(lambda: order.events.filter(kind="completed").exists(), "the order")
    services.want_refund(order, by="Sam")
    asked = debug_task.delay()

    refund_order.delay(order_id=order.pk)

    wait_for(lambda: type(order).objects.get(pk=order.pk).status == Status.REFUNDED, "the refund")
    wait_for(User.objects.filter(pk=reader.pk, mail_sent_at__isnull=False).exists, "the welcome")
    wait_for(TaskResult.objects.filter(task_name=tasks.heartbeat.name, status="SUCCESS").exists, "a heartbeat")
    log = settings.VAR_DIR / "processes.log"
    ended = re.compile(rf"task_succeeded.* task_id={asked.id}")
    wait_for(lambda: ended.search(log.read_text(errors="replace")), "the printed request")
    assert [mail["subject"] for mail in shop.sandbox(f"/mail.json?to={reader.email}")] == ["Welcome to Lantern & Loom"]
