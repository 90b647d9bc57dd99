"""The shop's own task and worker, as they are but for the charge."""

import redis

from myproject.celery import app

from .work import BROKER, tasks

NEEDS = "redelivers after the visibility timeout (an hour); the sweep"
WORKERS = ["-m celery -A benchmarks.peers.celery worker --concurrency 2 --queues orders,default --loglevel INFO"]
REDELIVERS = 15
# Of a killed worker's messages, long before the longest task of the shop may have ended.
app.conf.broker_transport_options = {**app.conf.broker_transport_options, "visibility_timeout": REDELIVERS}


def enqueue(order_id: int) -> None:
    tasks.process_order.delay(order_id=order_id)


def waiting() -> int:
    client = redis.Redis.from_url(BROKER.replace("db=2", "db=0"))
    return int(client.llen("orders") + client.hlen("unacked"))
