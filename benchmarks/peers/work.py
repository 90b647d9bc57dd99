"""What each engine runs: the body of `process_order`, with a provider inside the process that counts its charges."""

import os
from functools import cache

import django
import redis
from django.conf import settings
from django.db import connection

django.setup()

from benchmarks import gateway  # noqa: E402
from orders import payments, services, tasks  # noqa: E402
from orders.models import Payment  # noqa: E402

CHARGES = "charges"
BROKER = f"{settings.CELERY_BROKER_URL.replace('redis+socket:', 'unix:')}?db=2"
DATABASE = "host={HOST} user={USER} dbname={NAME}".format(**settings.DATABASES["default"])


def process(order_id: int) -> None:
    claimed = services.claim_orders(order_id, limit=tasks.ORDERS_AT_ONCE)
    if claimed:
        services.process_orders(claimed)


def charge(payment: Payment) -> payments.Charged:
    """Charge, and count it by the idempotency key where the provider takes its time."""
    if gateway.SECONDS:
        counters().hincrby(CHARGES, f"{payment.order_id} {payment.key}", 1)
    return payments.Charged(gateway.charge(payment))


def count(sql: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return int(cursor.fetchall()[0][0])


@cache
def counters() -> redis.Redis:
    return redis.Redis.from_url(BROKER.replace("db=2", "db=3"), decode_responses=True)


if os.environ.get("GATEWAY") == "inside":
    payments.charge = charge
    tasks.ORDERS_AT_ONCE = int(os.environ.get("ORDERS_AT_ONCE", tasks.ORDERS_AT_ONCE))
