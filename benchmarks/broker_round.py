"""One round of `benchmarks.brokers`: publishes, then has a worker drain it; prints ms, tasks/s and orders/s."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import shop  # Sets Django up.

from accounts.models import User  # isort: skip
from benchmarks.backlog import fill, stock_up  # isort: skip
from orders import tasks  # isort: skip
from orders.models import Order, Status  # isort: skip

WORKER = "-m celery -A benchmarks.shop worker --loglevel ERROR --concurrency 2 --queues orders,default"


def main(count: int, orders: int) -> None:
    if not User.objects.exists():
        stock_up()
    with tempfile.TemporaryDirectory() as folder:
        begin, end = Path(folder, "begin"), Path(folder, "end")
        shop.leave_mark.delay(path=str(begin))
        publishing = timed(lambda: [shop.noop.delay() for _ in range(count)])
        shop.leave_mark.delay(path=str(end))
        with worker():
            wait_for(end.exists)
        per_second = count / (end.stat().st_mtime - begin.stat().st_mtime)
        found = 1000 * publishing / count, per_second, backlog_of_orders(Path(folder, "orders"), orders)
        sys.stdout.write(" ".join(map(str, found)))


def backlog_of_orders(mark: Path, count: int) -> float:
    """Return how many orders a second the worker completes."""
    ids = fill(count)
    shop.leave_mark.apply_async(kwargs={"path": str(mark)}, queue="orders")
    for pk in ids:
        tasks.process_order.delay(order_id=pk)
    with worker():
        wait_for(lambda: Order.objects.filter(pk__in=ids, status=Status.COMPLETED).count() == count)
        ended = time.time()
    return count / (ended - mark.stat().st_mtime)


@contextmanager
def worker() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, *WORKER.split()], stdout=sys.stderr)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("The backlog is not drained.")
        time.sleep(0.02)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
