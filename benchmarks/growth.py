"""Every page, sweep and clean-up in a shop with a thousand orders and in one with many, as `seed_demo` makes them."""

import logging
import sys
import time
from collections.abc import Callable
from functools import partial

import psycopg
from django.core.management import call_command
from django.db import connection
from django.test import Client

from accounts.models import CrmContact, CrmStatus, User
from durable import schedules
from myproject.celery import app
from reports import daily_sales, downloads
from reports.models import Report
from tests.looks.pages import pages_of

from . import backlog
from .clearing import clearing
from .environment import CONNINFO
from .report import Median, Row, write

FEW = 1_000
# Of both shops: the same time, in which more or fewer orders came.
DAYS = 730
ROUNDS = 9
MOST = 1.5
CUSTOMER, ADMINISTRATOR = "customer@example.com", "staff@example.com"
DOWNLOAD = "download of a report, first bytes"
SEARCHES = {
    f"back-office-orders, {query}": f"/back-office/orders/?{query}"
    for query in ("q=casey", "q=nobody-is-called-so", "q=ABCD", "status=pending", "status=rejected", "page=100")
} | {
    f"admin, {query}": f"/admin/orders/{query}"
    for query in (
        "order/?q=nobody-is-called-so",
        "order/?q=ABCD",
        "order/?status__exact=cancelled",
        "order/?created_at__gte=2099-01-01T00:00Z&created_at__lt=2099-01-02T00:00Z",
        "payment/?q=ABCD",
        "payment/?q=pi_none",
        "payment/?status__exact=declined",
        "orderevent/?q=ABCD",
        "orderevent/?kind__exact=flagged",
    )
}
# These would ask the world outside.
OUTSIDE = {"Sync inventory", "Catch up with CRM"}
# A name, and what is done again and again.
Works = dict[str, Callable[[], object]]


def growth(count: int) -> list[Row]:
    """Return how long everything takes with so many orders, as a ratio to a thousand of the same two years."""
    app.loader.import_default_modules()
    call_command("collectstatic", interactive=False, verbosity=0)
    # Pages that answer 404 or 405 log an error.
    logging.disable(logging.ERROR)
    databases = {"few": FEW, "many": count}
    works: dict[str, Works] = {}
    for name, orders in databases.items():
        psycopg.connect(CONNINFO, dbname="postgres", autocommit=True).execute(f"CREATE DATABASE {name}")
        switch(name)
        call_command("migrate", verbosity=0)
        fill(orders)
        works[name] = {**pages(), **tasks()}
    seconds = in_turn(works)
    rows = [
        Row("" if place else f"{count:,} orders beside {FEW:,}", what, many, seconds["few"][what], unit="ms", most=MOST)
        for place, (what, many) in enumerate(seconds["many"].items())
    ]
    first = seconds["many"][DOWNLOAD]
    # The last one in use is the large one.
    return [*rows, *clearing(), Row("First bytes of a download, beside 50 ms", "ours", first, 0.05, most=1, unit="ms")]


def switch(database: str) -> None:
    connection.close()
    connection.settings_dict["NAME"] = database


def fill(orders: int) -> None:
    begun = time.monotonic()
    call_command("seed_demo", orders=orders, days=DAYS, stdout=sys.stdout)
    seeded = time.monotonic() - begun
    crowd()
    backlog.tidy()
    lines, size = asked("SELECT count(*) FROM orders_orderitem"), asked("SELECT pg_database_size(current_database())")
    write(f"{orders:,} orders, {lines:,} lines, {size / 1e9:.1f} GB: made in {seeded:.0f} s")
    write(f"  daily sales of all days rebuilt in {timed(lambda: list(daily_sales.rebuild())):.1f} s")


def crowd() -> None:
    """Add customers, so that a list of people fills its page in both shops."""
    people = User.objects.bulk_create(User(email=f"{n}@crowd.example.com", name=f"Crowd {n}") for n in range(200))
    CrmContact.objects.bulk_create(
        CrmContact(external_id=person.pk, user=person, status=CrmStatus.SYNCED, due_at=None) for person in people
    )


def asked(sql: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        [number] = cursor.fetchone()
        return int(number)


def pages() -> Works:
    """Return a visit of each page that answers this customer and this administrator, and a download's first bytes."""
    people = {email: User.objects.get(email=email) for email in (CUSTOMER, ADMINISTRATOR)}
    paths = pages_of(people[ADMINISTRATOR]) | SEARCHES
    visits: Works = {}
    for email, person in people.items():
        client = Client(SERVER_NAME="localhost")
        client.force_login(person)
        for name, path in paths.items():
            visit = partial(client.get, path, secure=True)
            if (answer := visit()).status_code == 200 and "html" in answer.headers["content-type"]:
                visits[f"{name} ({email.partition('@')[0]})"] = visit
    report = Report.objects.exclude(file="").order_by("-row_count")[:1].get()
    address = downloads.address(report, report.requested_by)
    return visits | {DOWNLOAD: partial(first_bytes, Client(SERVER_NAME="localhost"), address)}


def first_bytes(client: Client, address: str) -> None:
    answer = client.get(address, secure=True)
    if not next(iter(answer)):
        raise SystemExit(f"{address} answered {answer.status_code}")


def tasks() -> Works:
    """Return each scheduled task that asks only the database and the broker."""
    declared = {name: each for name, each in schedules.declared().items() if name not in OUTSIDE}
    return {
        f"task: {name}": partial(app.tasks[each.task].apply, kwargs=dict(each.kwargs), throw=True)
        for name, each in declared.items()
    }


def in_turn(works: dict[str, Works]) -> dict[str, dict[str, Median]]:
    """Return the median of each work in both databases, which take turns: so both bear what else the machine does."""
    found: dict[str, dict[str, Median]] = {database: {} for database in works}
    for what in works["few"]:
        rounds: dict[str, list[float]] = {database: [] for database in works}
        # The first round is for the caches.
        for number in range(1 + ROUNDS):
            for database, seconds in rounds.items():
                switch(database)
                connection.ensure_connection()
                took = timed(works[database][what])
                seconds += [took] if number else []
        for database, seconds in rounds.items():
            found[database][what] = Median.of(seconds)
    return found


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
