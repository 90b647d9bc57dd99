import shutil
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from playwright.sync_api import Browser, Page, sync_playwright

from accounts.models import User
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
    PeriodicTask.objects.filter(interval__isnull=False).update(
        interval=IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    )
    # Beat reads the schedules when it starts, so they come first.
    processes.heal()
    yield processes
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
