import redis
from rq import Queue, Retry, Worker

from . import work

NEEDS = "`Retry` on each job, looked for every ten minutes, after a minute without a sign of life; a sweep"
WORKERS = ["-m benchmarks.peers.rq"] * 2
# A minute more than the interval at which a job is watched.
REDELIVERS = 65
queue = Queue("orders", connection=redis.Redis.from_url(work.BROKER))


def enqueue(order_id: int) -> None:
    queue.enqueue(work.process, order_id, retry=Retry(max=20), result_ttl=0)


def waiting() -> int:
    return int(queue.count + queue.started_job_registry.get_job_count(cleanup=False))


if __name__ == "__main__":
    # It forks for each job, from a process in which Django is loaded.
    Worker([queue], job_monitoring_interval=5, maintenance_interval=5).work()
