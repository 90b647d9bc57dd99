"""Django's `migrate`, but it never makes the shop wait behind it."""

import time
from typing import Any

from django.core.management import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError, connections
from django.db.migrations import Migration
from psycopg.errors import LockNotAvailable

# Queries queue behind a migration that waits for a lock: it must give up before a page times out.
LOCK_SECONDS = 3
TRIES = 20
PAUSE_SECONDS = 3


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        """Try again while a table is in use; each time it goes on after the last migration that was applied."""
        self.database = options["database"]
        if options["check_unapplied"] or options["plan"]:
            # It only looks.
            super().handle(*args, **options)
            return
        if connections[self.database].settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
            # A session setting would leak to the next client of that server connection.
            raise CommandError("Migrate past PgBouncer: DATABASE_URL of PostgreSQL itself, DATABASE_PGBOUNCER=false.")
        self.limit(LOCK_SECONDS)
        for tries_left in reversed(range(TRIES)):
            try:
                super().handle(*args, **options)
                break
            except OperationalError as error:
                if not isinstance(error.__cause__, LockNotAvailable) or not tries_left:
                    raise
                self.stderr.write(f"A table is in use; trying again in {PAUSE_SECONDS} s, {tries_left} times at most.")
                time.sleep(PAUSE_SECONDS)
        self.execute_sql("RESET lock_timeout; RESET statement_timeout")

    def limit(self, lock_seconds: int) -> None:
        """Set the lock timeout, 0 for none; statements have no time limit."""
        self.execute_sql(f"SET statement_timeout = 0; SET lock_timeout = '{lock_seconds}s'")

    def execute_sql(self, sql: str) -> None:
        with connections[self.database].cursor() as cursor:
            cursor.execute(sql)

    def migration_progress_callback(self, action: str, migration: Migration | None = None, fake: bool = False) -> None:
        if migration and action in ("apply_start", "unapply_start"):
            # One that is not atomic builds an index while the shop runs: it waits for others, and no one waits for it;
            # if it gave up it would leave half an index.
            self.limit(LOCK_SECONDS if migration.atomic else 0)
        super().migration_progress_callback(action, migration, fake)
