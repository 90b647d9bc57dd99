"""Liveness and readiness of the web, asked while database and broker are dead, frozen, slow and back."""

import gc
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from django.conf import settings as shop_settings
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from myproject import embedded
from myproject.monitoring import health
from myproject.monitoring.health import Readiness
from myproject.transport.broker_url import REDIS
from tests.broker import Broker
from tests.shop import SECONDS, Shop, answers, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = [pytest.mark.operations, pytest.mark.django_db(transaction=True)]
NOWHERE = "redis://127.0.0.1:1/0"
LIVE, READY = "/healthz/live", "/healthz/ready"


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what was asked before, and ask each time."""
    monkeypatch.setattr(health, "readiness", Readiness())
    monkeypatch.setattr(health, "FRESH", -1)


@pytest.fixture
def frozen_postgres(servers: tuple[embedded.Postgres, embedded.Redis], db: None) -> Iterator[psutil.Process]:
    assert servers[0].process
    process = psutil.Process(servers[0].process.pid)
    process.suspend()
    yield process
    process.resume()


@pytest.fixture
def frozen_family(servers: tuple[embedded.Postgres, embedded.Redis], shop: Shop) -> Iterator[list[psutil.Process]]:
    """PostgreSQL with the processes of all its connections."""
    assert servers[0].process
    parent = psutil.Process(servers[0].process.pid)
    family = [parent, *parent.children(recursive=True)]
    for process in family:
        process.suspend()
    yield family
    for process in [*parent.children(recursive=True), parent]:
        process.resume()


def hangs() -> bool:
    """Return whether an abandoned query is still unanswered."""
    return any(isinstance(thread, health.Check) for thread in threading.enumerate())


def ask(path: str, **headers: Any) -> tuple[int, str]:
    answer = Client().get(path, **headers)
    return answer.status_code, answer.content.decode()


def test_both_are_content_when_all_is_well(broker: Broker) -> None:
    assert [ask(LIVE), ask(READY)] == [(200, "alive\n"), (200, "ready\n")]


def test_liveness_makes_no_query(broker: Broker, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    broker.use(NOWHERE)

    with django_assert_num_queries(0):
        assert ask(LIVE) == (200, "alive\n")


def test_probes_need_neither_host_name_nor_https_nor_login(broker: Broker, settings: Any) -> None:
    settings.ALLOWED_HOSTS, settings.SECURE_SSL_REDIRECT = ["shop.example.com"], True

    for path in (LIVE, READY):
        answer = Client().get(path, headers={"host": "10.0.0.7:8000"})
        assert answer.status_code == 200
        assert not answer.cookies


def test_readiness_names_the_broker_that_refuses_and_says_so_once(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker.use(NOWHERE)

    answers = [ask(READY) for _ in range(3)]
    broker.use(broker.url)

    assert answers == [(503, "not ready: broker\n")] * 3
    assert ask(READY) == (200, "ready\n")
    told = [record.getMessage() for record in caplog.records if record.name != "asyncio"]
    assert told == ["Not ready: broker", "Ready again"]


def test_readiness_does_not_wait_for_a_broker_that_is_frozen(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, frozen_redis: None
) -> None:
    monkeypatch.setitem(REDIS.probe_options, "socket_timeout", 30)

    answers = [ask(READY), ask(LIVE)]

    assert answers == [(503, "not ready: broker\n"), (200, "alive\n")]
    assert hangs()


def test_readiness_does_not_wait_for_a_database_that_is_frozen(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, frozen_postgres: psutil.Process
) -> None:
    monkeypatch.setitem(health.BOUNDS, "connect_timeout", 30)

    frozen = [ask(READY), ask(LIVE)]
    is_asking = hangs()
    frozen_postgres.resume()

    assert frozen == [(503, "not ready: database\n"), (200, "alive\n")]
    assert is_asking
    assert ask(READY) == (200, "ready\n")


def test_readiness_names_the_database_that_is_gone(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "HOST", "/nowhere")

    assert ask(READY) == (503, "not ready: database\n")


def test_readiness_waits_for_the_migrations_and_then_asks_no_more(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = MigrationRecorder.Migration.objects.filter(app="orders").latest("pk")
    row.delete()
    before = ask(READY)
    MigrationRecorder.Migration.objects.create(app=row.app, name=row.name)
    after = ask(READY)
    monkeypatch.setattr(health, "check_migrations", None)

    assert [before, after] == [(503, "not ready: migrations\n"), (200, "ready\n")]
    assert ask(READY) == (200, "ready\n")


def test_readiness_leaves_no_session_behind(broker: Broker) -> None:
    def sessions() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            return int(cursor.fetchone()[0])

    before = sessions()
    # Or it might close what the check has forgotten.
    gc.disable()
    try:
        assert ask(READY) == (200, "ready\n")
        wait_for(lambda: sessions() <= before, "its sessions to end", 10)
    finally:
        gc.enable()


def test_many_probes_ask_the_database_once(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FRESH", 60)
    asked: list[None] = []
    latency = health.database_latency
    monkeypatch.setattr(health, "database_latency", lambda: asked.append(None) or latency())  # type: ignore[func-returns-value]

    assert {ask(READY) for _ in range(5)} == {(200, "ready\n")}
    assert len(asked) == 1


# --- Through the real web server ---


def open_page() -> None:
    with suppress(OSError), urlopen(f"{shop_settings.SITE_URL}/", timeout=SECONDS):
        pass


def test_web_lives_while_all_its_threads_wait_for_a_frozen_database(
    shop: Shop, frozen_family: list[psutil.Process]
) -> None:
    pages = [threading.Thread(target=open_page) for _ in range(16)]
    for page in pages:
        page.start()
    wait_for(lambda: not answers(f"{shop_settings.SITE_URL}/accounts/login/", seconds=1), "all threads to be busy")

    lives = [answers(f"{shop_settings.SITE_URL}{LIVE}", seconds=3) for _ in range(8)]
    is_ready = answers(f"{shop_settings.SITE_URL}{READY}", seconds=3)

    for process in frozen_family:
        process.resume()
    for page in pages:
        page.join()
    assert (lives, is_ready) == ([True] * 8, False)
    wait_for(lambda: answers(f"{shop_settings.SITE_URL}{READY}"), "the web to be ready again")
