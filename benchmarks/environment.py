"""Points the settings at servers of the benchmark's own, as in production, in a temporary folder: import this first."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from myproject import embedded
from tests.ports import free_port

HOME = Path(tempfile.mkdtemp(prefix="shop-bench-"))


CONNINFO = f"host={embedded.socket_dir(HOME)} user=postgres dbname=shop"
SANDBOX_PORT, SMTP_PORT = free_port(), free_port()
os.environ.update(
    DJANGO_SETTINGS_MODULE="myproject.settings",
    VAR_DIR=str(HOME),
    DATABASE_URL=embedded.database_url(HOME),
    CELERY_BROKER_URL=embedded.broker_url(HOME),
    # With DEBUG, Django remembers each query, and everything is slower than in production.
    DEBUG="false",
    SECRET_KEY=secrets.token_hex(32),
    # Of this process, whose output is the table; the workers write theirs, as in production (`processes.py`).
    LOG_LEVEL="ERROR",
    ALLOWED_HOSTS="localhost",
    STRIPE_API_KEY="sk_test_sandbox",
    STRIPE_API_BASE=f"http://127.0.0.1:{SANDBOX_PORT}",
)


@contextmanager
def servers() -> Iterator[embedded.Postgres]:
    """PostgreSQL and Redis with an empty shop, for as long as the block lasts."""
    try:
        with embedded.Postgres(HOME) as postgres, embedded.Redis(HOME):
            postgres.create_database("shop")
            yield postgres
    finally:
        shutil.rmtree(HOME, ignore_errors=True)
