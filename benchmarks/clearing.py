"""What it costs to clear what must not grow: events, results, mails and sessions, beside one DELETE of all."""

import time
from functools import partial
from typing import NamedTuple

from django.db import connection

from myproject.celery import app

from .report import Row
from .scenarios import in_turn

COUNT = 50_000


class Old(NamedTuple):
    """The task that clears the rows, the statement that makes some, and the condition that finds them."""

    task: str
    table: str
    insert: str
    condition: str


WHAT = {
    "events": Old(
        "orders.tasks.clear_old_events",
        "orders_orderevent",
        """(order_id, kind, detail, task_id, worker, created_at)
        SELECT id, 'retry', '', gen_random_uuid()::text, '', now() - interval '400 days' FROM orders_order LIMIT %s""",
        "kind = 'retry' AND created_at < now() - interval '399 days'",
    ),
    "results": Old(
        "myproject.tasks.clear_task_results",
        "django_celery_results_taskresult",
        """(task_id, status, content_type, content_encoding, date_created, date_started, date_done)
        SELECT gen_random_uuid()::text, 'SUCCESS', 'application/json', 'utf-8', old, old, old
        FROM generate_series(1, %s), (SELECT now() - interval '400 days' AS old) AS ago""",
        "date_done < now() - interval '399 days'",
    ),
    "mails": Old(
        "accounts.tasks.clear_old_mail",
        "accounts_accountmail",
        """("to", subject, text, html, created_at, mail_sent_at, mail_claimed_by, mail_error)
        SELECT 'a@example.com', 'Hello', repeat('text ', 100), '', old, old, '', ''
        FROM generate_series(1, %s), (SELECT now() - interval '400 days' AS old) AS ago""",
        "created_at < now() - interval '399 days'",
    ),
    "sessions": Old(
        "myproject.tasks.clear_sessions",
        "django_session",
        """(session_key, session_data, expire_date)
        SELECT md5(n::text), repeat('x', 300), now() - interval '1 day' FROM generate_series(1, %s) AS n""",
        "expire_date < now()",
    ),
}


def clearing() -> list[Row]:
    rows = []
    for name, old in WHAT.items():
        speeds = in_turn({"at once": partial(at_once, old), "ours": partial(ours, old)})
        base = speeds["at once"]
        rows.append(Row(f"{COUNT:,} old {name} cleared", "one DELETE", base, base, unit="rows/s"))
        rows.append(Row("", "ours, in chunks", speeds["ours"], base, unit="rows/s"))
    return rows


def at_once(old: Old) -> float:
    make(old)
    start = time.perf_counter()
    execute(f"DELETE FROM {old.table} WHERE {old.condition}")
    return COUNT / (time.perf_counter() - start)


def ours(old: Old) -> float:
    make(old)
    start = time.perf_counter()
    app.tasks[old.task].apply(throw=True)
    seconds = time.perf_counter() - start
    if left := execute(f"DELETE FROM {old.table} WHERE {old.condition}"):
        raise SystemExit(f"{old.task} has left {left} rows of {old.table}.")
    return COUNT / seconds


def make(old: Old) -> None:
    execute(f"VACUUM {old.table}")
    if execute(f"INSERT INTO {old.table} {old.insert}", COUNT) != COUNT:
        raise SystemExit(f"There are fewer than {COUNT:,} new rows of {old.table}.")


def execute(sql: str, *values: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, values or None)
        return int(cursor.rowcount)
