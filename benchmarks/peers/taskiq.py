import asyncio

import redis
from taskiq_redis import RedisStreamBroker

from . import work

NEEDS = "acknowledges after the task, claims old messages (ten minutes) only where new ones come; a sweep"
WORKERS = ["-m taskiq worker benchmarks.peers.taskiq:broker --workers 2 --max-async-tasks 1 --max-threadpool-threads 1"]
REDELIVERS = 15
broker = RedisStreamBroker(
    work.BROKER,
    # Also those messages that were sent before the first worker has started.
    consumer_id="0",
    # Few at once: what a worker has fetched waits for it.
    xread_count=10,
    idle_timeout=REDELIVERS * 1000,
    unacknowledged_lock_timeout=REDELIVERS,
)
loop = asyncio.new_event_loop()


@broker.task
def process(order_id: int) -> None:
    work.process(order_id)


def enqueue(order_id: int) -> None:
    loop.run_until_complete(process.kiq(order_id))


def waiting() -> int:
    [group] = redis.Redis.from_url(work.BROKER).xinfo_groups("taskiq")
    return int(group["pending"] + (group["lag"] or 0))
