"""What Prometheus reads: who may, what is counted and survives, what is asked and never hangs."""

import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from django.conf import LazySettings, settings
from django.db import connection, connections
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from accounts.models import User
from myproject.monitoring import gauges, metrics
from myproject.tasks import add, fail, fail_twice
from tests.broker import Broker
from tests.shop import METRICS_PORTS, Shop, wait_for

pytest_plugins = ["tests.broker"]

NOWHERE = "redis://127.0.0.1:1/0"
TOKEN = {"Authorization": f"Bearer {settings.METRICS_TOKEN}"}
ADD = {"task": "myproject.tasks.add", "outcome": "succeeded"}


def read(port: int, headers: dict[str, str] = TOKEN) -> str:
    with urlopen(Request(f"http://127.0.0.1:{port}/metrics", headers=headers), timeout=10) as answer:
        return str(answer.read().decode())


def value(text: str, name: str, **labels: str) -> float:
    """Return the sum of all samples of that name with these labels."""
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget what other tests were answered."""
    for part in (gauges.database, gauges.the_broker):
        part.answer = None
    yield
    wait([part.answer for part in (gauges.database, gauges.the_broker) if part.answer], 10)


# --- Who may read ---


def test_metrics_do_not_exist_without_a_token(settings: LazySettings) -> None:
    settings.METRICS_TOKEN = ""

    assert Client().get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Bearer ü", "Basic b25seQ==", settings.METRICS_TOKEN])
def test_metrics_want_the_token(header: str) -> None:
    answer = Client().get("/metrics", headers={"Authorization": header})

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert b"shop_" not in answer.content


@pytest.mark.django_db(transaction=True)
def test_metrics_need_neither_host_name_nor_https_nor_login(settings: LazySettings, fresh: None) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.ALLOWED_HOSTS = ["shop.example.com"]

    answer = Client().get("/metrics", headers=TOKEN | {"Host": "10.0.0.7:8000"})

    assert answer.status_code == 200
    assert "shop_up" in answer.content.decode()


# --- The web ---


@pytest.mark.django_db
def test_requests_are_counted_by_view_and_not_by_what_a_visitor_types(
    customer: User, login: Callable[[User], Client]
) -> None:
    before = metrics.counts().decode()

    Client().get("/secret-of-alice@example.com/")
    Client().generic("BREW", "/")
    login(customer).get("/orders/ABCD-1234/")

    after = metrics.counts().decode()
    assert value(after, "shop_requests_total") - value(before, "shop_requests_total") == 3
    assert value(after, "shop_requests_total", view="orders:detail", status="4xx", method="GET") >= 1
    assert value(after, "shop_requests_total", method="other") >= 1
    assert not re.search("alice|BREW|ABCD", after)


# --- Workers and beat ---


def test_worker_counts_outcomes_retries_and_times(shop: Shop) -> None:
    port = METRICS_PORTS["worker"]
    before = read(port)

    add.delay(1, 2)
    fail.delay()
    fail_twice.delay()
    add.apply_async((1, 2), expires=-1)

    def more(name: str, **labels: str) -> float:
        return value(read(port), name, **labels) - value(before, name, **labels)

    wait_for(lambda: more("shop_tasks_total", outcome="succeeded", task="myproject.tasks.fail_twice"), "the last one")
    wait_for(lambda: more("shop_tasks_total", outcome="expired", task="myproject.tasks.add"), "the one too late")
    assert more("shop_tasks_total", **ADD) == 1
    assert more("shop_tasks_total", outcome="failed", task="myproject.tasks.fail") == 1
    assert more("shop_tasks_total", outcome="retried", task="myproject.tasks.fail_twice") == 2
    assert more("shop_task_retries_total", reason="TemporaryError", task="myproject.tasks.fail_twice") == 2
    assert more("shop_task_seconds_count", task="myproject.tasks.add") == 1
    # One each: what was to wait for its retry did not wait for a worker.
    assert more("shop_task_queue_seconds_count", queue="default") >= 3


@pytest.mark.parametrize(("path", "headers", "status"), [("/metrics", {}, 401), ("/", TOKEN, 404)])
def test_beats_own_server_wants_the_token_and_has_nothing_else(
    path: str, headers: dict[str, str], status: int, shop: Shop
) -> None:
    port = METRICS_PORTS["beat"]
    wait_for(lambda: is_open(port), "beat's server")

    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=10)

    assert refused.value.code == status
    wait_for(lambda: value(read(port), "shop_messages_total", queue="orders"), "a message to be sent")


def test_slow_clients_of_a_workers_own_server_keep_nobody_waiting_and_are_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "PATIENCE", 1)
    server = metrics.Server(("127.0.0.1", 0), metrics.Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    slow = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(20)]
    begins, left = time.monotonic(), slow

    while left and time.monotonic() - begins < 5:
        for client in left:
            with suppress(OSError):
                client.sendall(b"G")
        assert "shop_tasks" in read(port)
        left = [client for client in left if not has_ended(client)]

    assert left == []
    assert time.monotonic() - begins < 3
    server.shutdown()
    server.server_close()


def has_ended(client: socket.socket) -> bool:
    client.settimeout(0.01)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_folders_of_killed_families_go_and_those_in_use_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, used, new = (tmp_path / f"{metrics.FOLDER}{name}" for name in ("dead", "used", "new"))
    for folder in (dead, used, new):
        folder.mkdir()
    for folder in (dead, used):
        os.utime(folder, (time.time() - 3600,) * 2)
    lock = os.open(used, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    metrics.clear_folders()

    os.close(lock)
    assert set(tmp_path.iterdir()) == {used, new}


@pytest.mark.parametrize(("taken", "free"), [([], "web0"), (["web0", "web1"], "web2"), (["web0", "web2"], "web1")])
def test_new_process_takes_the_first_free_place(taken: list[str], free: str) -> None:
    assert metrics.family.free_place(taken) == free


# --- What is asked ---


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_frozen", [False, True])
def test_broker_that_is_away_is_a_metric_and_not_a_failure(is_frozen: bool, broker: Broker, fresh: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker.use(f"redis://127.0.0.1:{silent.getsockname()[1]}/0" if is_frozen else NOWHERE)

        text = Client().get("/metrics", headers=TOKEN).content.decode()

    assert value(text, "shop_up", part="broker") == 0
    assert value(text, "shop_up", part="database") == 1
    assert "shop_queue_waiting" not in text
    assert "shop_orders_oldest_seconds" in text


@pytest.mark.django_db(transaction=True)
def test_question_that_takes_too_long_is_cut_and_the_others_are_answered(broker: Broker, fresh: None) -> None:
    other = connections["default"].copy()
    with other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE reports_report IN ACCESS EXCLUSIVE MODE")

        answer = gauges.database.answers()

        cursor.execute("ROLLBACK")
    other.close()
    names = {found.name for found in answer.metrics}
    assert not answer.is_up
    assert "shop_orders_open" in names
    assert "shop_reports_open" not in names


def test_part_that_hangs_is_asked_once_and_waited_for_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "PATIENCE", 0.05)
    end, asked = Event(), []
    part = gauges.Part("frozen", lambda question: list(question()), ())

    @part.question
    def hang() -> list[gauges.Metric]:
        asked.append(1)
        end.wait(30)
        return []

    answers = [part.latest() for _ in range(3)]

    assert not any(answer.done() for answer in answers)
    end.set()
    assert answers[-1].result(10).is_up
    assert len(asked) == 1


def test_slow_part_leaves_what_it_said_before() -> None:
    part, hurry = gauges.Part("slow", lambda question: list(question()), ()), Event()

    @part.question
    def number() -> list[gauges.Metric]:
        hurry.wait(30)
        return [gauges.gauge("shop_number", "A number.", 42)]

    before = part.meanwhile()
    hurry.set()
    part.latest().result(10)
    after = part.meanwhile()

    assert (before.metrics, before.is_up) == ([], False)
    assert ([metric.name for metric in after.metrics], after.is_up) == (["shop_number"], False)


@pytest.mark.django_db
def test_no_question_reads_a_whole_table_that_grows() -> None:
    plans = []

    def explain(execute: Callable[..., object], sql: str, params: object, many: bool, context: object) -> object:
        with connection.connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {sql}", params)
            plans.append(f"{sql}\n" + "\n".join(row[0] for row in cursor.fetchall()))
        return execute(sql, params, many, context)

    # The tables are empty: without this PostgreSQL would always read them from end to end.
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    with connection.execute_wrapper(explain):
        for question in gauges.database.questions:
            list(question())

    # Few are schedules, canaries (queues), alerts (causes) and dead letters. An index of all keys is the whole table.
    large = [plan for plan in plans if not re.search("periodictask|canary|alert|deadletter", plan)]
    guilty = [plan for plan in large if re.search("Seq Scan|_pkey", plan)]
    assert len(large) > 10
    assert guilty == []
