import dramatiq
from dramatiq.brokers.redis import RedisBroker

from . import work

NEEDS = "requeues what a dead worker held, by its heartbeat (a minute) and by chance (one call of 1,000); a sweep"
WORKERS = ["-m dramatiq benchmarks.peers.dramatiq --processes 2 --threads 1"]
REDELIVERS = 15
broker = RedisBroker(url=work.BROKER, heartbeat_timeout=REDELIVERS * 1000, maintenance_chance=50_000)
dramatiq.set_broker(broker)


@dramatiq.actor
def process(order_id: int) -> None:
    work.process(order_id)


def enqueue(order_id: int) -> None:
    process.send(order_id)


def waiting() -> int:
    return int(broker.client.hlen("dramatiq:default.msgs"))
