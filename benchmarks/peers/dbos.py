import sys
import threading
from functools import cache

from dbos import DBOS, DBOSClient, DBOSConfig, run_dbos_database_migrations
from django.conf import settings

from . import work

NEEDS = "recovers its workflows where an executor of the same name starts again; a sweep, or a lease that is over"
WORKERS = ["-m benchmarks.peers.dbos one", "-m benchmarks.peers.dbos two"]
REDELIVERS = 0
URL = "postgresql://{USER}@/{NAME}?host={HOST}".format(**settings.DATABASES["default"])
QUEUE = "orders"


def prepare() -> None:
    run_dbos_database_migrations(URL)


@cache
def client() -> DBOSClient:
    return DBOSClient(system_database_url=URL, application_name="peers")


def enqueue(order_id: int) -> None:
    client().enqueue({"workflow_name": "process", "queue_name": QUEUE}, order_id)


@DBOS.workflow(name="process")
def process(order_id: int) -> None:
    work.process(order_id)


def waiting() -> int:
    return work.count("SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING')")


def run(executor: str) -> None:
    """Poll ten times a second, for more than it can do until the next time, and do two at a time."""
    config: DBOSConfig = {
        "name": "peers",
        "system_database_url": URL,
        "executor_id": executor,
        "application_version": "1",
        "max_executor_threads": 2,
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=50, polling_interval_sec=0.1)
    threading.Event().wait()


if __name__ == "__main__":
    run(sys.argv[1])
