import random
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import setup_databases, teardown_databases
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from pytest_django.plugin import DjangoDbBlocker

from myproject import embedded
from tests.faults import grid
from tests.faults.arena import Arena


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=random.randrange(1_000_000), help="of the storm's chance")
    parser.addoption("--orders", type=int, default=200, help="how many the storm places")


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("seed"))


@pytest.fixture(scope="session")
def database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The test database; pytest-django makes it only if some test has its own `db` fixture."""
    with django_db_blocker.unblock():
        is_made = connection.settings_dict["NAME"].startswith("test_")
        made = [] if is_made else setup_databases(verbosity=0, interactive=False)
        yield
        teardown_databases(made, verbosity=0)


@pytest.fixture(scope="session")
def arena(
    servers: tuple[embedded.Postgres, embedded.Redis], database: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[Arena]:
    """The processes, on a database that keeps the orders of all tests until the end."""
    with django_db_blocker.unblock():
        call_command("sync_schedules")
        PeriodicTask.objects.filter(interval__isnull=False).update(
            interval=IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
        )
        with Arena(*servers) as arena:
            # Longer than the shop waits, for the requests that ask for it.
            arena.sandbox("/controls", {"fault": "latency", "seconds": 4})
            yield arena


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    report = (yield).get_result()
    if item.get_closest_marker("faults") and (report.when == "call" or report.failed):
        grid.note(item, report)
    arena = getattr(item, "funcargs", {}).get("arena")
    if arena is not None and report.failed:
        report.sections.append(("End of the processes' log", arena.last_words()))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if grid.RESULTS:
        seed, orders = config.getoption("seed"), config.getoption("orders")
        terminalreporter.write_line(grid.write(f"SEED={seed} ORDERS={orders}"))
