"""What PostgreSQL puts an end to, in web, workers and migrations: with real locks and real slow queries."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
from celery.result import AsyncResult
from django.core.management import call_command
from django.db import connection
from django.db.models import Model

from myproject.celery import app
from myproject.management.commands import migrate
from orders import tasks
from orders.models import Order, Product, Status
from tests.broker import Broker
from tests.factories import make_product, place_order
from tests.faults.buyers import Buyer
from tests.running import worker
from tests.shop import wait_for

pytest_plugins = ["tests.broker", "tests.running"]
pytestmark = [pytest.mark.operations, pytest.mark.django_db(transaction=True)]

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def somebody_else() -> Iterator[psycopg.Connection]:
    with psycopg.connect(**{**connection.get_connection_params(), "cursor_factory": psycopg.Cursor}) as other:
        yield other


@contextmanager
def locked(row: Model) -> Iterator[None]:
    """Hold the row as somebody does who has yet to commit."""
    with somebody_else() as other:
        other.execute(f"SELECT 1 FROM {row._meta.db_table} WHERE id = %s FOR UPDATE", [row.pk])
        yield


@contextmanager
def slow(table: str, seconds: int) -> Iterator[None]:
    """Let each row of the table take so long to read."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"ALTER TABLE {table} RENAME TO {table}_itself;"
            f"CREATE VIEW {table} AS SELECT * FROM {table}_itself WHERE pg_sleep({seconds})::text = ''"
        )
        try:
            yield
        finally:
            cursor.execute(f"DROP VIEW {table}")
            cursor.execute(f"ALTER TABLE {table}_itself RENAME TO {table}")


def active(part: str) -> list[tuple[int, str]]:
    """Return the process and the query of each connection to this database that is busy with such a query."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
            " AND pid <> pg_backend_pid() AND query LIKE %s",
            [f"%{part}%"],
        )
        return list(cursor.fetchall())


def limits() -> list[str]:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    with connection.cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
        return list(cursor.fetchone())


# --- What is set ---


def test_limits_are_those_of_workers_and_commands_by_default() -> None:
    assert limits() == ["30min", "15s", "10min"]


def test_no_limit_cuts_a_task_before_its_own_does(settings: Any) -> None:
    app.loader.import_default_modules()
    all_tasks = settings.CELERY_TASK_TIME_LIMIT
    own = {task.time_limit for name, task in app.tasks.items() if not name.startswith("celery.")} - {None, all_tasks}

    statement, lock, idle, _ = settings.DATABASE_LIMITS.values()

    assert statement >= max(all_tasks, *own)
    # Those without a limit of their own are sweeps, of short transactions.
    assert idle >= max(own)
    # Waiting for an order's lock is given up before another worker may take the order over.
    assert lock < 30 * 0.8


def test_web_has_limits_of_its_own() -> None:
    script = """if True:
        import runpy
        runpy.run_path("deploy/gunicorn.conf.py")
        from django.conf import settings
        print(*settings.DATABASE_LIMITS.values(), settings.DATABASES["default"]["CONN_HEALTH_CHECKS"])
    """

    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert told.split() == ["20", "5", "30", "5", "True"]


# --- A page ---


def test_page_that_waits_for_a_lock_fails_whole_and_works_afterwards(web: Callable[..., Any]) -> None:
    buyer = Buyer(make_product())

    with web(DATABASE_LOCK_SECONDS="1"):
        buyer.prepare()
        with locked(buyer.person):
            refused = buyer.check_out()
            placed = buyer.order()
        accepted = buyer.check_out()

    assert refused.status_code == 500
    assert "Something broke on our side" in refused.text
    assert placed is None
    assert accepted.status_code == 200
    assert Order.objects.of(buyer.person).count() == 1


def test_page_with_a_slow_query_fails_and_the_next_one_works(web: Callable[..., Any]) -> None:
    buyer = Buyer(make_product())

    with web(DATABASE_STATEMENT_SECONDS="1"):
        with slow("orders_product", 600):
            refused = buyer.ask("GET", "/")
            left = active("orders_product")
        accepted = buyer.ask("GET", "/")

    assert (refused.status_code, left, accepted.status_code) == (500, [], 200)


# --- A task ---


def send(name: str, **kwargs: Any) -> AsyncResult:
    return app.send_task(f"tests.slow_worker.{name}", kwargs=kwargs, queue="default")


def test_order_that_waits_for_a_lock_is_tried_again_and_ends_once(queue: Broker, tmp_path: Path) -> None:
    product = make_product()
    order = place_order(product=product)

    with worker(DATABASE_LOCK_SECONDS="1"):
        with locked(product):
            tasks.process_order.delay(order_id=order.pk)
            wait_for(lambda: active("orders_product"), "the worker to wait for the lock")
            # What it has claimed is rolled back with it, so that the order is free for the next try.
            wait_for(lambda: not active("orders_product"), "the worker to give up for now")
            assert Order.objects.get(pk=order.pk).status == Status.PENDING
        # The sandbox is not there: what counts is that the stock is reserved, once.
        wait_for(lambda: Order.objects.filter(pk=order.pk, status=Status.PROCESSING).exists(), "the next try")

    product.refresh_from_db()
    assert product.stock == 9


def test_task_with_a_slow_query_is_tried_again_and_leaves_no_query_behind(queue: Broker) -> None:
    with worker("tests.slow_worker", DATABASE_STATEMENT_SECONDS="1"):
        result = send("query", seconds=600)
        # Asked once, since it may have begun again by the next time.
        state = wait_for(lambda: (now := result.state) in ("RETRY", "FAILURE") and now, "the query to be ended")
        reason = repr(result.result)
        app.control.revoke(result.id)

    assert (state, active("pg_sleep(600")) == ("RETRY", [])
    assert "statement timeout" in reason


def test_query_ends_with_the_process_that_a_hard_limit_kills(queue: Broker) -> None:
    with worker("tests.slow_worker"):
        result = send("exceed_hard_limit", seconds=600)
        [(pid, _)] = wait_for(lambda: active("pg_sleep"), "the query to begin")
        wait_for(lambda: result.state == "FAILURE", "the hard limit")
        wait_for(lambda: not active("pg_sleep"), "PostgreSQL to notice")

    assert pid not in dict(active(""))


HOLDING = """if True:
    import django; django.setup()
    from django.db import transaction
    from orders.models import Product
    with transaction.atomic():
        Product.objects.update(stock=0)
        print("holds", flush=True)
        input()
"""


def test_transaction_of_a_frozen_process_is_ended() -> None:
    product = make_product()
    url = f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{connection.settings_dict['NAME']}"
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "myproject.settings", "DATABASE_URL": url}

    command = [sys.executable, "-c", HOLDING]
    with subprocess.Popen(command, cwd=ROOT, env=env | {"DATABASE_IDLE_SECONDS": "1"}, stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        Product.objects.filter(pk=product.pk).update(price=1)
        process.kill()

    product.refresh_from_db()
    assert (product.stock, product.price) == (10, Decimal(1))


# --- A migration ---


@pytest.fixture
def moving(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The app `tests.moving` with its first table; its migrations wait for a lock as short as they can."""
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 1)
    monkeypatch.setattr(migrate, "PAUSE_SECONDS", 0)
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.moving"]
    call_command("migrate", "moving", "0001", verbosity=0)
    yield
    call_command("migrate", "moving", "zero", verbosity=0)


def migrating(target: str) -> tuple[Thread, StringIO]:
    """Migrate in a thread, over a connection of its own."""
    said = StringIO()

    def migrate() -> None:
        call_command("migrate", "moving", target, verbosity=0, stderr=said)
        connection.close()

    thread = Thread(target=migrate)
    thread.start()
    return thread, said


def test_migration_that_needs_a_table_waits_for_it_in_short_turns(moving: None) -> None:
    with somebody_else() as reader:
        reader.execute("SELECT 1 FROM moving")
        thread, said = migrating("0002")
        wait_for(lambda: said.getvalue().count("A table is in use") == 2, "the migration to give up twice")
    thread.join()

    with connection.cursor() as cursor:
        cursor.execute("SELECT size FROM moving")
    assert limits() == ["30min", "15s", "10min"]


def test_migration_that_blocks_no_one_waits_as_long_as_it_takes(moving: None) -> None:
    call_command("migrate", "moving", "0002", verbosity=0)

    with somebody_else() as writer:
        writer.execute("INSERT INTO moving VALUES ('lamp')")
        thread, said = migrating("0003")
        [(pid, _)] = wait_for(lambda: active("CREATE INDEX CONCURRENTLY"), "the index to be built")
        with connection.cursor() as cursor:
            longer = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND now() - query_start > interval '1.5 s'"
            wait_for(lambda: cursor.execute(longer, [pid]) or cursor.fetchall(), "longer than a lock is waited for")
    thread.join()

    with connection.cursor() as cursor:
        cursor.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'moving_name'::regclass")
        valid = cursor.fetchall()
    assert (valid, said.getvalue()) == ([(True,)], "")
