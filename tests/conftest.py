import shutil
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client, TransactionTestCase
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from playwright.sync_api import Browser, Page, sync_playwright

from accounts.models import User
from myproject.celery import app
from tests.factories import make_user
from tests.shop import Shop

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the end of what the processes said when a test that used them has failed."""
    report = (yield).get_result()
    shop = getattr(item, "funcargs", {}).get("shop")
    if shop is not None and report.failed and report.when == "call":
        report.sections.append(("End of the processes' log", shop.last_words()))


@pytest.fixture(scope="session", autouse=True)
def quick_hashes() -> None:
    """Hash passwords once and not a million times; the real processes of the fixture `shop` hash as always."""
    PBKDF2PasswordHasher.iterations = 1


@pytest.fixture(scope="session", autouse=True)
def quick_flushes() -> Iterator[None]:
    """After a test with transactions of its own, empty the tables that it filled; Django empties, and fills, all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_what_was_filled)
        yield


def empty_what_was_filled(case: TransactionTestCase) -> None:
    tables = set(connection.introspection.django_table_names(only_existing=True, include_views=False))
    # Django would write these anew, all the same.
    tables -= {ContentType._meta.db_table, Permission._meta.db_table}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"(SELECT '{table}' FROM {table} LIMIT 1)" for table in tables))
        deletions = [f"DELETE FROM {table}" for (table,) in cursor.fetchall()]
        # No foreign key asks for an order of tables then.
        cursor.execute("; ".join(["SET LOCAL session_replication_role = replica", *deletions]))


@pytest.fixture
def customer(db: None) -> User:
    return make_user(name="Alice")


@pytest.fixture
def staff(db: None) -> User:
    return make_user(name="Sam", is_staff=True, is_superuser=True)


@pytest.fixture
def login() -> Callable[[User], Client]:
    """Return a client that is logged in as the person."""

    def as_person(person: User) -> Client:
        client = Client()
        client.force_login(person)
        return client

    return as_person


@pytest.fixture(scope="session")
def processes(django_db_setup: None) -> Iterator[Shop]:
    with Shop() as shop:
        yield shop


@pytest.fixture
def shop(processes: Shop, transactional_db: None) -> Iterator[Shop]:
    """The real processes, on this test's database, with the frequent schedules each second."""
    # No model's table, so nothing empties it between tests: logins would be limited soon.
    cache.clear()
    call_command("sync_schedules")
    frequent = PeriodicTask.objects.filter(interval__isnull=False)
    frequent.update(interval=IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS))
    # They expire late: sent each second they would pile up before a slow worker.
    canaries = frequent.filter(task="myproject.tasks.canary")
    canaries.update(interval=IntervalSchedule.objects.create(every=5, period=IntervalSchedule.SECONDS))
    # Beat reads the schedules when it starts or goes on, so they come first.
    processes.heal()
    yield processes
    # What beat has sent is of no use to anybody, and a slow worker would take its time for it.
    app.control.purge()
    processes.settle()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium or Chrome on the PATH")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def page(browser: Browser, shop: Shop) -> Iterator[Page]:
    """A fresh browser profile on the shop's first page; a script error or a blocked resource fails the test."""
    context = browser.new_context(base_url=settings.SITE_URL)
    errors: list[str] = []
    tab = context.new_page()
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield tab
    context.close()
    assert not [error for error in errors if "status of 4" not in error]
