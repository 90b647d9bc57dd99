"""The try-it page: what it queues, what it shows, and to whom."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.conf import settings
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.utils.html import escape
from django_celery_results.models import TaskResult

from accounts.models import User
from myproject import tasks
from myproject.alerting.models import DeadLetter
from myproject.celery import app
from myproject.try_it import page as try_it
from tests.broker import Broker
from tests.factories import make_user
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
NOWHERE = "redis://127.0.0.1:1/0"
VALID: dict[str, dict[str, Any]] = {
    "add": {"x": "2", "y": "3"},
    "multiply": {"x": "2", "y": "3"},
    "wait": {"seconds": "1"},
    "fail": {},
    "retry": {},
    "burst": {"count": "20"},
    "progress": {"count": "2"},
    "group": {"count": "3"},
    "chain": {"x": "2", "y": "3"},
    "chord": {"count": "4"},
    "map": {"count": "20"},
    "chunks": {"count": "20"},
    "priority": {"count": "3"},
    "countdown": {"seconds": "1"},
    "expiry": {"seconds": "1"},
    "revoke": {"seconds": "2"},
}
# What these send is a task of Celery's own, which calls ours.
SENT = {"map": "celery.starmap", "chunks": "celery.starmap"}


@pytest.fixture
def office(login: Login, staff: User) -> Client:
    return login(staff)


def queue(client: Client, name: str, queue: str = "default", **fields: str) -> Any:
    return client.post(f"/try-it/{name}/", VALID[name] | {"queue": queue} | fields)


def text(client: Client, path: str = "/try-it/") -> str:
    return client.get(path).content.decode()


def newest(client: Client) -> try_it.Run:
    return client.get("/try-it/runs/").context["runs"][0]


def is_over(client: Client, name: str) -> bool:
    return not any(run.is_followed for run in client.get("/try-it/runs/").context["runs"] if run.sample == name)


# --- What is queued ---


def test_each_sample_has_an_example() -> None:
    assert VALID.keys() == try_it.SAMPLES.keys()


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("chosen", ["default", "reports"])
def test_sample_is_queued_on_the_chosen_queue(name: str, chosen: str, broker: Broker, office: Client) -> None:
    answer = queue(office, name, chosen)

    found = {(queue, task) for queue, task, _ in broker.messages()}
    assert (answer.status_code, answer["Location"]) == (302, "/try-it/")
    assert found == {(chosen, SENT.get(name, try_it.SAMPLES[name].task.name))}


def test_burst_queues_as_many_as_asked_for(broker: Broker, office: Client) -> None:
    queue(office, "burst", count="200")

    assert broker.lengths()["default"] == 200


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        *[("add", "x", value) for value in ("", "seven", "NaN", "inf", "1e400", "2e9", "-2e9", "9" * 5000)],
        *[("wait", "seconds", value) for value in ("", "0", "-1", "21", "1.5", "9" * 5000)],
        *[("burst", "count", value) for value in ("", "1", "201", "NaN", "1" * 30)],
        *[("fail", "queue", value) for value in ("", "ordres", "celery")],
    ],
)
def test_nonsense_is_answered_with_a_message_and_queues_nothing(
    name: str, field: str, value: str, broker: Broker, office: Client
) -> None:
    answer = queue(office, name, **{field: value})

    [form] = [form for key, _, form in answer.context["samples"] if key == name]
    assert (answer.status_code, list(form.errors)) == (422, [field])
    assert escape(form.errors[field][0]) in answer.content.decode()
    assert sum(broker.lengths().values()) == 0


def test_unknown_sample_is_not_found(office: Client) -> None:
    assert office.post("/try-it/drop_database/", {"queue": "default"}).status_code == 404


@pytest.mark.parametrize("name", ["add", "burst"])
def test_page_says_so_when_the_broker_is_away(name: str, broker: Broker, office: Client) -> None:
    broker.use(NOWHERE)

    answer = queue(office, name)

    assert answer.status_code == 302
    [told] = [str(message) for message in get_messages(answer.wsgi_request)]
    assert told.startswith("The broker does not answer: 0 of ")
    assert "Nothing so far" in text(office)


# --- What is shown ---


def test_page_shows_what_waits_for_a_worker(broker: Broker, office: Client) -> None:
    queue(office, "add")

    run = newest(office)

    assert (run.state, run.waited, run.ran, run.workers, run.outcome) == (("Queued", "queued"), None, None, [], "")
    assert 'hx-get="/try-it/runs/"' in text(office)


def test_page_stops_polling_for_messages_without_a_worker(
    broker: Broker, office: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(office, "add")
    monkeypatch.setattr(try_it, "FOLLOWED_FOR", try_it.timedelta())

    page = text(office)

    assert "Not taken by any worker" in page
    assert "hx-get" not in page


def test_page_shows_only_what_this_person_queued_here(broker: Broker, office: Client, login: Login) -> None:
    queue(office, "add")
    TaskResult.objects.create(task_id="foreign", task_name="orders.tasks.process_order", status="FAILURE")
    other = login(make_user(is_staff=True, is_superuser=True))

    assert [run.title for run in office.get("/try-it/").context["runs"]] == ["Add"]
    assert list(other.get("/try-it/?id=foreign").context["runs"]) == []
    assert "foreign" not in text(other)


def test_page_keeps_the_latest_and_forgets_the_rest(broker: Broker, office: Client) -> None:
    for _ in range(try_it.RUNS_KEPT):
        queue(office, "add")
    queue(office, "fail")

    runs = office.get("/try-it/").context["runs"]

    assert ([run.title for run in runs[:2]], len(runs)) == (["Fail", "Add"], try_it.RUNS_KEPT)


@pytest.mark.parametrize("clicks", [1, try_it.RUNS_KEPT])
def test_page_makes_one_query_for_all_its_runs(
    clicks: int, broker: Broker, office: Client, django_assert_num_queries: Any
) -> None:
    for _ in range(clicks):
        queue(office, "burst")

    # Session, person and basket, as on every page, and the results.
    with django_assert_num_queries(4):
        text(office)


def test_page_names_a_function_that_exists_for_each_sample() -> None:
    for sample in try_it.SAMPLES.values():
        path, function = sample.code
        assert f"def {function}(" in (settings.BASE_DIR / path).read_text()


@pytest.mark.parametrize(("method", "path"), [("get", ""), ("get", "runs/"), ("post", "add/")])
def test_page_is_for_staff_only(method: str, path: str, login: Login, customer: User) -> None:
    assert getattr(login(customer), method)(f"/try-it/{path}").status_code == 403
    assert getattr(Client(), method)(f"/try-it/{path}").status_code == 302


def test_dashboard_of_staff_leads_to_the_page(office: Client) -> None:
    assert 'href="/try-it/"' in text(office, "/dashboard/")


# --- The tasks ---


@pytest.mark.proves(
    "myproject.tasks.add",
    "myproject.tasks.multiply",
    "myproject.tasks.wait",
    "myproject.tasks.fail",
    "myproject.tasks.fail_twice",
    "myproject.tasks.total",
    "myproject.tasks.progress",
    "twice",
    page="try_it",
)
def test_sample_tasks_run_twice_do_the_same() -> None:
    assert [task.apply((2, 3)).get() for task in (tasks.add, tasks.multiply) for _ in range(2)] == [5, 5, 6, 6]
    assert [tasks.wait.apply(kwargs={"seconds": 0}).get() for _ in range(2)] == ["Waited 0 s."] * 2
    assert [tasks.fail.apply().state for _ in range(2)] == ["FAILURE"] * 2
    assert [tasks.fail_twice.apply().get() for _ in range(2)] == ["Attempt 3 succeeded."] * 2
    assert [tasks.total.apply(([1, 2],)).get() for _ in range(2)] == [3, 3]
    assert [tasks.progress.apply(kwargs={"steps": 0}).get() for _ in range(2)] == ["0 steps are done."] * 2


@pytest.mark.proves(
    "myproject.tasks.add",
    "myproject.tasks.multiply",
    "myproject.tasks.wait",
    "myproject.tasks.fail",
    "myproject.tasks.fail_twice",
    "myproject.tasks.total",
    "myproject.tasks.progress",
    "worker",
)
@pytest.mark.every_broker
@pytest.mark.every_store
def test_page_follows_each_sample_through_a_real_worker(shop: Shop, office: Client) -> None:
    # Messages of low priority wait forever while beat keeps a slow worker busy.
    shop.pause("beat")
    for name in VALID:
        queue(office, name)

    for name in VALID:
        wait_for(partial(is_over, office, name), f"the sample {name}")

    runs = office.get("/try-it/runs/").context["runs"]
    shown = {run.sample: (run.state[0], run.outcome, run.retries) for run in runs}
    assert shown == {
        "add": ("Succeeded", "5.0", 0),
        "multiply": ("Succeeded", "6.0", 0),
        "wait": ("Succeeded", "Waited 1 s.", 0),
        "fail": ("Failed", "PermanentError: This task fails on purpose, and trying again would not help.", 0),
        "retry": ("Succeeded", "Attempt 3 succeeded.", 2),
        "burst": ("20 of 20 finished", "", 0),
        "progress": ("Succeeded", "2 steps are done.", 0),
        "group": ("3 of 3 finished", "", 0),
        "chain": ("2 of 2 finished", "", 0),
        "chord": ("5 of 5 finished", "", 0),
        "map": ("Succeeded", str([2.0 * number for number in range(20)]).replace(".0", ""), 0),
        "chunks": ("2 of 2 finished", "", 0),
        "priority": ("3 of 3 finished", "", 0),
        "countdown": ("Succeeded", "2", 0),
        "expiry": ("Revoked", "TaskRevokedError: expired", 0),
        "revoke": ("Revoked", "TaskRevokedError: revoked", 0),
    }
    # Other stores know no times but that of the end.
    run_ones = [run for run in runs if run.state[0] != "Revoked"]
    assert all((run.waited is not None and run.ran is not None) is settings.RESULTS_IN_DATABASE for run in run_ones)
    assert all(worker.startswith("worker@") for run in runs for worker in run.workers)
    assert "hx-get" not in text(office)


# --- A database that goes away, and the worker's main process, which stores what no child can ---


def cut(*, stay_away: bool = False) -> None:
    """End all connections to the database but this one, and let no new ones in if it is to stay away."""
    name = connection.settings_dict["NAME"]
    with connection._nodb_cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {connection.ops.quote_name(name)} ALLOW_CONNECTIONS {not stay_away}")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            [name],
        )


def test_worker_stores_what_expires_after_the_database_has_ended_its_connections(shop: Shop, office: Client) -> None:
    # If it were starting, it would end with its connection, as soon as it goes on.
    shop.stop("beat")
    queue(office, "expiry")
    wait_for(partial(is_over, office, "expiry"), "the first")
    cut()

    queue(office, "expiry")

    wait_for(partial(is_over, office, "expiry"), "another")


def test_messages_that_expire_without_a_database_are_neither_kept_nor_dead_letters(shop: Shop, office: Client) -> None:
    shop.stop("beat")
    cut(stay_away=True)
    try:
        # More than the worker takes at a time, were they not all acknowledged.
        for _ in range(10):
            tasks.add.apply_async((1, 1), queue="default", expires=-1)
            tasks.add.apply_async((1, 1), queue="default", countdown=2, expires=1)
        wait_for(lambda: not shop.waits() and not any(app.control.inspect(limit=1).scheduled().values()), "all to end")
    finally:
        cut()

    queue(office, "add")

    wait_for(partial(is_over, office, "add"), "the task")
    assert not DeadLetter.objects.exists()
