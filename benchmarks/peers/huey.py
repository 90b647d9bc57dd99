from huey import RedisHuey

from . import work

NEEDS = "forgets what a dead worker held; a sweep"
WORKERS = ["-m huey.bin.huey_consumer benchmarks.peers.huey.huey --workers 2 --worker-type process"]
REDELIVERS = 0
huey = RedisHuey("orders", url=work.BROKER, results=False)


@huey.task()
def process(order_id: int) -> None:
    work.process(order_id)


def enqueue(order_id: int) -> None:
    process(order_id)


def waiting() -> int:
    return int(huey.pending_count())
