"""Migrations run while the release before still does: what it would trip over is found here."""

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django_migration_linter import MigrationLinter
from django_migration_linter.sql_analyser import analyse_sql_statements

pytestmark = [pytest.mark.operations, pytest.mark.django_db(transaction=True)]

OURS = ("myproject", "accounts", "orders", "reports")
FIRST = (
    "From before the first release: there was none that could trip over it, and no row for which anybody could wait."
)
# From varchar(40) to varchar(80), PostgreSQL changes its catalogue and reads no row. The release before writes what is
# shorter, and leaves out the new columns, which have a default in the database.
LONGER = "Only makes text columns longer, and gives columns a default."
# Migrations of the past, which stay as they are, each with the reason why what the linter blames does no harm. A new
# one belongs here only where the linter is wrong.
EXCUSED = {
    "myproject.0002_cache": "Only makes a table.",
    "myproject.0004_cache_of_results": "Only makes a table.",
    "myproject.0005_leases": LONGER,
    "accounts.0004_deleted_at": FIRST,
    "accounts.0006_leases": LONGER,
    "orders.0002_refunds_and_flags": FIRST,
    "orders.0005_product_picture": FIRST + " 0008 gives its columns the defaults that they lack.",
    "orders.0006_digest": FIRST,
    "orders.0010_leases": LONGER,
    "orders.0021_large_numbers": "Rewrites the products, which are few; prices only get a higher limit.",
    "orders.0022_one_sku_rule": "Exchanges an index of the products, which are few; the new one refuses no more.",
    "reports.0002_kind": FIRST,
    "reports.0003_expired_reports": FIRST,
    "reports.0005_life": FIRST,
    "reports.0007_schedules_and_packs": FIRST,
    "reports.0008_kinds_and_formats": FIRST,
    "reports.0010_leases": LONGER,
    "reports.0013_daily_units": "Rewrites two tables of daily sums: the next count and the dashboard wait for it.",
    "reports.0014_large_sums": "Only changes the limit of sums in the catalogue.",
}


def found_in(*labels: str) -> dict[str, set[str]]:
    """Return for each migration of these apps what the linter blames it for."""
    migrations = MigrationLoader(connection).disk_migrations.values()
    ours = sorted((m for m in migrations if m.app_label in labels), key=str)
    return {str(migration): set(issues(migration)) for migration in ours}


def issues(migration: Migration) -> Iterator[str]:
    linter = MigrationLinter(no_cache=True, no_output=True)
    sql = without_new_tables(linter.get_sql(migration.app_label, migration.name))
    errors, _, warnings = analyse_sql_statements(linter.sql_analyser_class, sql)
    for issue in [*errors, *warnings, *chain(*linter.analyse_data_migration(migration))]:
        yield issue.code


def without_new_tables(sql: list[str]) -> list[str]:
    """Leave out operations on tables that the migration itself creates, which are not in use yet."""
    new = re.findall(r'CREATE TABLE "(\w+)"', "\n".join(sql))
    return [line for line in sql if not any(re.search(rf'(ALTER TABLE|ON) "{table}"', line) for table in new)]


def test_migrations_do_no_harm_to_the_release_that_is_still_running() -> None:
    blamed = {name: codes for name, codes in found_in(*OURS).items() if codes}

    fresh = {name: codes for name, codes in blamed.items() if name not in EXCUSED}
    assert not fresh, f"{fresh}: spread it over two releases, see docs/operations/deploys.md"
    assert blamed.keys() == EXCUSED.keys()


def test_linter_blames_what_would_do_harm(settings: Any) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.unsafe"]

    assert found_in("unsafe") == {
        "unsafe.0001_table": set(),
        "unsafe.0002_required": {"NOT_NULL"},
        "unsafe.0003_renamed": {"RENAME_COLUMN"},
        "unsafe.0004_index": {"CREATE_INDEX"},
        "unsafe.0005_right": set(),
    }
