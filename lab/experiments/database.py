"""Tasks and the database."""

from datetime import timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from lab import faults, marks, rows
from lab.arena import NAIVE, OURS, Arena
from lab.experiment import Numbers, Side, at_least, at_most, exactly, experiment
from lab.naive import data
from lab.naive import workers as naive_workers
from myproject import celery
from myproject.celery import app
from orders import digests, tasks
from orders.models import Order, week_of

TASKS = 40


def naive_dead(lab: Arena) -> Numbers:
    keeps = {"LAB_KEEPS_CONNECTIONS": "yes"}
    with lab.worker(NAIVE, conf={"CELERY_DB_REUSE_MAX": 1000}, **keeps):
        for number in range(10):
            naive_workers.ask_database.delay(number)
        lab.until(lambda: len(marks.left("taken")) == 10, "the first tasks")
        marks.clear()
        lab.say(f"PostgreSQL drops {faults.drop_connections()} connections, as a restart does.")
        for number in range(TASKS):
            naive_workers.ask_database.delay(number)
        lab.say(f"{TASKS} tasks are queued.", asked=TASKS)
        lab.watch(6, lambda: {"ended": len(marks.left("taken"))})
    return lab.count(lost=TASKS - len(marks.left("taken")))


def ours_dead(lab: Arena) -> Numbers:
    lab.common(OURS)
    first, *others = rows.place_many(TASKS + 1)
    tasks.process_order.delay(order_id=first.pk)
    lab.until(lambda: rows.completed(first), "the first order", sweep=True)
    lab.say(f"PostgreSQL drops {faults.drop_connections()} connections, as a restart does.")
    for order in others:
        tasks.process_order.delay(order_id=order.pk)
    lab.say(f"{TASKS} tasks are queued.", asked=TASKS)
    lab.until(lambda: rows.completed(*others) == TASKS, "all orders", sweep=True)
    return lab.count(ended=TASKS, lost=0)


experiment(
    "dead-connections",
    "CELERY_DB_REUSE_MAX, and connections that have died",
    practice="Keep the connection to the database between tasks, for speed.",
    fault="PostgreSQL drops all connections, as a restart or a failover does.",
    naive=Side(
        naive_dead,
        (naive_workers.ask_database,),
        "connection.cursor()",
        {"asked": exactly(TASKS), "lost": at_least(2)},
    ),
    ours=Side(
        ours_dead,
        (celery.drop_dead_connections,),
        "close_old_connections()",
        {"asked": exactly(TASKS), "ended": exactly(TASKS), "lost": exactly(0)},
    ),
    why="Every later task of such a process fails, until somebody restarts it. Ours replaces dead connections before "
    "each task, and an error of the database is a retry.",
    answers=("myproject/celery.py · drop_dead_connections", "durable/checks/traps.py · dead_connections_are_reused"),
    test="tests/faults/test_database_restarts.py",
    docs="operations/database.md",
)


def opened() -> int:
    """Return how many connections this database has ever had."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT sessions FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def naive_pool(lab: Arena) -> Numbers:
    with lab.worker(NAIVE, DATABASE_POOL="true"):
        before = opened()
        for number in range(TASKS):
            naive_workers.ask_database.delay(number)
        lab.say(f"{TASKS} tasks of one query are queued.", asked=TASKS)
        lab.until(lambda: len(marks.left("taken")) == TASKS, "all tasks")
        lab.watch(2, lambda: {"connections": opened() - before})
    return lab.numbers


def ours_pool(lab: Arena) -> Numbers:
    with lab.worker(OURS):
        before = opened()
        for number in range(TASKS):
            app.send_task("lab.ours.ask_database", kwargs={"name": str(number)}, queue="default")
        lab.say(f"{TASKS} tasks of one query are queued.", asked=TASKS)
        lab.until(lambda: len(marks.left("taken")) == TASKS, "all tasks")
        lab.watch(2, lambda: {"connections": opened() - before})
    return lab.numbers


experiment(
    "pool-in-a-worker",
    "A connection pool in workers",
    practice='Switch on Django\'s pool: OPTIONS = {"pool": True}.',
    fault=f"{TASKS} tasks of one query each.",
    naive=Side(
        naive_pool,
        (naive_workers.ask_database,),
        "connection.cursor()",
        {"asked": exactly(TASKS), "connections": at_least(TASKS)},
    ),
    ours=Side(
        ours_pool,
        (celery.drop_dead_connections,),
        "close_old_connections()",
        {"asked": exactly(TASKS), "connections": at_most(8)},
    ),
    why="Celery closes connections around each task, and with them the pool, which opens several at once. Ours has "
    "the pool for the threads of the web only; a worker keeps one connection for many tasks.",
    answers=("myproject/settings.py · CELERY_DB_REUSE_MAX", "durable/checks/traps.py · worker_has_a_pool"),
    test="tests/test_celery.py",
    docs="decisions/0012-pool-for-the-web-only.md",
)

PEOPLE = 100


def fill() -> None:
    """Make people with an order each, of last week."""
    people = User.objects.bulk_create(
        User(email=f"reader{number}@example.com", name=f"Reader {number}") for number in range(PEOPLE)
    )
    ids = rows.place_in_bulk(PEOPLE)
    for pk, person in zip(ids, people, strict=True):
        Order.objects.filter(pk=pk).update(customer=person, created_at=timezone.now() - timedelta(days=7))


def naive_queries(lab: Arena) -> Numbers:
    fill()
    with CaptureQueriesContext(connection) as captured:
        found = data.orders_of_everybody()
    lab.say(f"The goods of {PEOPLE} people, by {len(captured)} queries.", rows=len(found))
    return lab.count(queries=len(captured))


def ours_queries(lab: Arena) -> Numbers:
    fill()
    people = list(User.objects.filter(orders__isnull=False).values_list("pk", flat=True))
    with CaptureQueriesContext(connection) as captured:
        found = digests.orders_of(people, week_of(timezone.now()))
        goods = [item for orders in found.values() for order in orders for item in order.items.all()]
    lab.say(f"The goods of {PEOPLE} people, by {len(captured)} queries.", rows=len(goods))
    return lab.count(queries=len(captured))


experiment(
    "query-by-query",
    "A query for each row of a report",
    practice="Loop over people, their orders and the items of each.",
    fault=f"{PEOPLE} people with an order each. With a hundred thousand it is as bad as it looks.",
    naive=Side(
        naive_queries,
        (data.orders_of_everybody,),
        "order.items.all()",
        {"rows": exactly(PEOPLE), "queries": at_least(2 * PEOPLE)},
    ),
    ours=Side(
        ours_queries,
        (digests.orders_of,),
        "Prefetch(",
        {"rows": exactly(PEOPLE), "queries": at_most(3)},
    ),
    why="Each person is a query, and each order another one. Ours asks for a chunk of people at once, and makes as "
    "many queries for one of them as for two hundred.",
    answers=("orders/digests.py · orders_of", "orders/digests.py · send_chunk"),
    test="tests/orders/test_digests.py",
    docs="performance/index.md",
)
