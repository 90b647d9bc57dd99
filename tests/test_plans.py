"""Nothing that pages and tasks ask for often reads a large table from one end to the other."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts import services as people
from accounts.models import User
from durable.mail import MAIL
from orders import services, tasks
from orders.models import Order, OrderEvent, Payment
from reports import daily_sales
from tests.broker import Broker
from tests.factories import make_product, place_order

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

# Enough for PostgreSQL to prefer an index wherever there is one.
MANY, CUSTOMERS = 12_000, 300
LARGE = {"orders_order", "orders_orderitem", "orders_payment", "orders_orderevent", "myproject_run"}
ORDERS = """
INSERT INTO orders_order (reference, customer_id, token, status, reason, total, currency, created_at, completed_at,
    mail_sent_at, claimed_by, opened_at, flag_reason, mail_error)
SELECT to_char(n, 'FM000000000'), (%(customers)s::bigint[])[1 + n %% cardinality(%(customers)s::bigint[])],
    gen_random_uuid(), 'completed', '', 25, 'EUR', at, at, at, '', at, '', ''
FROM generate_series(1, %(count)s) AS n,
    LATERAL (SELECT now() - (%(count)s - n) * interval '20 minutes' AS at) AS made
"""
ITEMS = """
INSERT INTO orders_orderitem (order_id, product_id, name, price, quantity)
SELECT id, (%(products)s::bigint[])[1 + id %% cardinality(%(products)s::bigint[])], 'Lamp', 12.50, 2 FROM orders_order
"""
PAYMENTS = """
INSERT INTO orders_payment (order_id, attempt, key, card, amount, currency, status, provider_id, reason, created_at,
    refund_id)
SELECT id, 1, gen_random_uuid(), 'pm_card_visa', 25, 'EUR', 'succeeded', 'pi_' || id, '', created_at, ''
FROM orders_order
"""
EVENTS = """
INSERT INTO orders_orderevent (order_id, kind, detail, task_id, worker, created_at)
SELECT id, kind, '', gen_random_uuid()::text, '', created_at
FROM orders_order, unnest(ARRAY['placed', 'processing', 'completed', 'confirmed']) AS kind
"""
RUNS = """
INSERT INTO myproject_run (task_id, task, attempt, state, why, request_id, path, queue, worker, pid, sent_at,
    started_at, ended_at, is_periodic, about, calls)
SELECT gen_random_uuid(), 'orders.tasks.process_order', 1, 'SUCCESS', '', '', '', 'orders', '', 1, at, at, at, false,
    ARRAY['orders.order:' || n], '[]'
FROM generate_series(1, %(count)s) AS n, LATERAL (SELECT now() - n * interval '1 second' AS at) AS made
"""


@pytest.fixture
def many(db: None, customer: User) -> None:
    """A shop with so many orders, of which some are open."""
    buyers = [User(email=f"{n}@buyers.example.com", name="B") for n in range(CUSTOMERS)]
    customers = [customer.pk, *(user.pk for user in User.objects.bulk_create(buyers))]
    products = [make_product(stock=1_000).pk for _ in range(20)]
    with connection.cursor() as cursor:
        cursor.execute(ORDERS, {"customers": customers, "count": MANY})
        cursor.execute(ITEMS, {"products": products})
        cursor.execute(PAYMENTS)
        cursor.execute(EVENTS)
        cursor.execute(RUNS, {"count": MANY})
        for _ in range(3):
            place_order(customer)
        cursor.execute("ANALYZE")
    list(daily_sales.rebuild())


def count_a_month() -> None:
    last = timezone.localdate() - timedelta(days=30)
    daily_sales.count(last - timedelta(days=30), last)


def process(order: Order) -> None:
    services.settle({}, Order.objects.held(services.claim_orders(order.pk, limit=50)))


ADMIN = "/admin/orders/"
LONG_AGO = "created_at__gte=2020-01-01T00:00Z&created_at__lt=2020-01-02T00:00Z"
HOT: dict[str, Callable[[Any], object]] = {
    "catalogue": lambda seen: seen.customer.get("/"),
    "own orders": lambda seen: seen.customer.get("/orders/"),
    "last page of own orders": lambda seen: seen.customer.get("/orders/?page=4"),
    "order": lambda seen: seen.customer.get(seen.order.get_absolute_url()),
    "own dashboard": lambda seen: seen.customer.get("/dashboard/"),
    "what hinders staff from closing their account": lambda seen: seen.staff.get("/people/delete/"),
    "own account's end": lambda seen: seen.customer.get("/people/delete/"),
    "dashboard of staff": lambda seen: seen.staff.get("/dashboard/"),
    "how it works": lambda seen: seen.staff.get("/how-it-works/"),
    "all orders": lambda seen: seen.staff.get("/back-office/orders/"),
    "last page of all orders": lambda seen: seen.staff.get("/back-office/orders/?page=400"),
    "orders of a person": lambda seen: seen.staff.get("/back-office/orders/?q=Alice"),
    "orders by reference": lambda seen: seen.staff.get("/back-office/orders/?q=0000117"),
    "orders of a state that none has": lambda seen: seen.staff.get("/back-office/orders/?status=cancelled"),
    "open orders": lambda seen: seen.staff.get("/back-office/orders/?status=processing"),
    "orders of nobody": lambda seen: seen.staff.get("/back-office/orders/?q=nobody-is-called-so"),
    "admin's orders": lambda seen: seen.staff.get("/admin/orders/order/"),
    "admin's page of a customer": lambda seen: seen.staff.get(f"/admin/accounts/user/{seen.order.customer_id}/change/"),
    "own orders by the API": lambda seen: Client().get("/api/v1/orders/", headers=seen.token),
    "admin's orders, the next page": lambda seen: seen.staff.get("/admin/orders/order/?p=2"),
    "admin's orders that need a person": lambda seen: seen.staff.get(f"{ADMIN}order/?needs_person=yes"),
    "admin's payments": lambda seen: seen.staff.get("/admin/orders/payment/"),
    "admin's events": lambda seen: seen.staff.get("/admin/orders/orderevent/"),
    "admin's search of orders by reference": lambda seen: seen.staff.get(f"{ADMIN}order/?q=0000117"),
    "admin's search of orders of a person": lambda seen: seen.staff.get(f"{ADMIN}order/?q=Alice"),
    "admin's search of orders of nobody": lambda seen: seen.staff.get(f"{ADMIN}order/?q=nobody-is-called-so"),
    "admin's search of payments by order": lambda seen: seen.staff.get(f"{ADMIN}payment/?q=00000117"),
    "admin's search of payments by number": lambda seen: seen.staff.get(f"{ADMIN}payment/?q=pi_117"),
    "admin's search of events": lambda seen: seen.staff.get(f"{ADMIN}orderevent/?q=00000117"),
    "admin's orders of a state that none has": lambda seen: seen.staff.get(f"{ADMIN}order/?status__exact=cancelled"),
    "admin's refunded orders": lambda seen: seen.staff.get(f"{ADMIN}order/?status__exact=refunded"),
    "refunded orders": lambda seen: seen.staff.get("/back-office/orders/?status=refunded"),
    "admin's orders by reference": lambda seen: seen.staff.get(f"{ADMIN}order/?o=1"),
    "admin's orders by completion": lambda seen: seen.staff.get(f"{ADMIN}order/?o=-6"),
    "admin's orders of long ago": lambda seen: seen.staff.get(f"{ADMIN}order/?{LONG_AGO}"),
    "admin's payments of a state that none has": lambda seen: seen.staff.get(f"{ADMIN}payment/?status__exact=declined"),
    "admin's events of a rare kind": lambda seen: seen.staff.get(f"{ADMIN}orderevent/?kind__exact=rejected"),
    "admin's events of long ago": lambda seen: seen.staff.get(f"{ADMIN}orderevent/?{LONG_AGO}"),
    "message for a new order": lambda seen: tasks.queue_new_order(seen.order),
    "claim, reserve and settle": lambda seen: process(seen.order),
    "process an order": lambda seen: tasks.process_order.apply(kwargs={"order_id": seen.order.pk}),
    "sweep of orders": lambda seen: tasks.check_pending_orders(),
    "claim of mails": lambda seen: Order.objects.claim(limit=50, lease=MAIL),
    "clear old events": lambda seen: tasks.clear_old_events(),
    "sales of a month": lambda seen: count_a_month(),
    "refunds that are due": lambda seen: list(Payment.objects.due()),
}


@pytest.mark.usefixtures("many")
def test_no_hot_query_reads_a_large_table_from_end_to_end(
    broker: Broker, login: Callable[[User], Client], customer: User, staff: User
) -> None:
    seen = Seen(login(customer), login(staff), Order.objects.of(customer).open().order_by("pk")[:1].get())

    found = [f"{name}: {fault}" for name, work in HOT.items() for fault in faults_of(partial(work, seen))]

    assert not found, "\n\n".join(found)


class Seen:
    def __init__(self, customer: Client, staff: Client, order: Order) -> None:
        self.customer, self.staff, self.order = customer, staff, order
        self.token = {"Authorization": f"Bearer {people.make_token(order.customer, 'script')}"}


def faults_of(work: Callable[[], object]) -> list[str]:
    """Run it; return each of its statements whose plan reads a large table whole, with the part that does."""
    faults: list[str] = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "WITH")) and not many:
            with context["connection"].connection.cursor() as cursor:
                [(plans,)] = cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", params).fetchall()
            whole = [node for plan in as_json(plans) for node in whole_reads(plan["Plan"])]
            faults.extend(f"{node} in {sql[:400]}" for node in whole)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        work()
    return faults


def as_json(plans: Any) -> Any:
    return json.loads(plans) if isinstance(plans, str) else plans


def is_partial(index: str | None) -> bool:
    """Return whether the index has only some rows of its table, which are few."""
    if index is None:
        return False
    with connection.cursor() as cursor:
        cursor.execute("SELECT indpred IS NOT NULL FROM pg_index WHERE indexrelid = %s::regclass", [index])
        [found] = cursor.fetchone()
        return bool(found)


def whole_reads(node: dict[str, Any], *, limited: bool = False) -> Iterator[str]:
    """Yield the parts of the plan that read all of a large table, unless a limit ends them early.

    It does not where few rows, or none, get through a filter: then it goes on to the end.
    """
    limited = limited or node["Node Type"] == "Limit"
    if node.get("Relation Name") in LARGE:
        is_large = node["Plan Rows"] > MANY / 2
        is_whole = node["Node Type"] == "Seq Scan" or is_large
        is_sought = not ({"Index Cond", "Recheck Cond"} & node.keys() or is_large or is_partial(node.get("Index Name")))
        if is_sought if limited else is_whole:
            yield f"{node['Node Type']} of {node['Relation Name']}"
    if node["Node Type"] in ("Sort", "Aggregate", "Hash", "HashAggregate"):
        # These read everything below them before they give the first row.
        limited = False
    for below in node.get("Plans", []):
        yield from whole_reads(below, limited=limited)


def test_the_guard_notices_what_has_no_index(many: None) -> None:
    unindexed = OrderEvent.objects.filter(worker="somebody")

    assert faults_of(lambda: list(unindexed))
    assert faults_of(lambda: Order.objects.count())
