"""A pytest plugin that points the settings at servers of the tests' own, whatever is set outside."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from myproject import embedded
from tests import servers as brokers
from tests.ports import free_offset

HOME = Path(tempfile.mkdtemp(prefix="shop-test-"))
# Also where no test runs: with `-n` the first process only hands them out.
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
PORTS = (8000, 5555, 8001, 8002, 1025, 9101, 9102)


os.environ.update(
    VAR_DIR=str(HOME),
    MEDIA_ROOT=str(HOME / "media"),
    DATABASE_URL=embedded.database_url(HOME),
    CELERY_BROKER_URL=brokers.broker_url(HOME),
    PORT_OFFSET=str(free_offset(*PORTS)),
    DEBUG="true",
    # Short, so that the tests of recovery need not wait.
    ORDER_LEASE_SECONDS="5",
    REPORT_LEASE_SECONDS="3",
    IMPORT_LEASE_SECONDS="5",
    STRIPE_TIMEOUT_SECONDS="3",
    SANDBOX_SLOW_SECONDS="2",
    METRICS_TOKEN="only-for-the-tests",
    # Playwright keeps an event loop in the thread of the test, which Django would take for an async view.
    DJANGO_ALLOW_ASYNC_UNSAFE="true",
)
for variable in (
    *("SITE_URL", "FLOWER_URL", "SANDBOX_URL", "EMAIL_URL", "LIVE_URL", "LIVE_BIND", "LIVE_DATABASE_URL"),
    *("WAREHOUSE_URL", "WAREHOUSE_TOKEN"),
    *("STRIPE_API_BASE", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "SANDBOX_WEBHOOK_URL", "SANDBOX_SHOP_URL"),
    *("CRM_URL", "CRM_TOKEN"),
    *("HEARTBEAT_DIR", "HEARTBEAT_SECONDS"),
    *("METRICS_PORT", "METRICS_BIND"),
    *("ALERT_URLS", "ALERT_COOL_DOWN_SECONDS"),
    "STORAGE_URL",
    "CELERY_RESULT_BACKEND",
):
    os.environ.pop(variable, None)


# Even where it is set: without compiled files each process that a test starts compiles the whole shop again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Another PostgreSQL than that of the wheel, by the folder of its programs.
if programs := os.environ.get("TEST_POSTGRES"):
    embedded.Postgres._binary = staticmethod(Path(programs).joinpath)  # type: ignore[method-assign, assignment]

# `redis` or `django-cache`: `make brokers` runs the tests that are marked so with both.
if results := os.environ.get("TEST_RESULTS"):
    url = f"{embedded.broker_url(HOME)}?virtual_host=2" if results == "redis" else results
    os.environ["CELERY_RESULT_BACKEND"] = url

# Data of a PostgreSQL whose tables are made already; as they are, since it may run as somebody else.
if template := os.environ.get("TEST_TEMPLATE"):
    subprocess.run(["cp", "-a", f"{template}/.", str(HOME)], check=True)

# whitenoise warns when nothing was collected yet.
(HOME / "static").mkdir()
# Ended by a time limit or a closed window, the tests still stop what they started.
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler)


class Postgres(embedded.Postgres):
    """Like that of `make run`, without waiting for the disk: whatever is killed, only the machine's own end shows."""

    def command(self) -> Sequence[str | Path]:
        return [*super().command(), "-c", "fsync=off", "-c", "full_page_writes=off"]


@pytest.fixture(scope="session", autouse=True)
def servers() -> Iterator[tuple[embedded.Postgres, embedded.Server]]:
    with Postgres(HOME) as postgres, broker_server() as broker:
        yield postgres, broker
    shutil.rmtree(HOME, ignore_errors=True)


@contextmanager
def broker_server() -> Iterator[embedded.Server]:
    server = brokers.BROKERS[brokers.NAME](HOME)
    try:
        server.start()
    except embedded.Unavailable as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(servers: object) -> None:
    """Have PostgreSQL running before pytest-django creates its database there."""
