"""How the memory of workers grows, and what ends it: `python -m benchmarks.memory --reports 100 --orders 20000`."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import cycle, islice
from typing import NamedTuple

import psutil

from . import environment

import django  # isort: skip

SIDES = {
    "without a limit": [],
    "--max-tasks-per-child 20": ["--max-tasks-per-child", "20"],
    # In kilobytes.
    "--max-memory-per-child 300000": ["--max-memory-per-child", "300000"],
}
KINDS = [
    ("sales", "csv"),
    ("sales", "xlsx"),
    ("sales_by_product", "xlsx"),
    ("sales_by_day", "pdf"),
    ("sales", "parquet"),
]
# Orders after which everything is loaded and warm: of these and of the last ones the size is compared.
WARM = 2_000
MEGABYTE = 1024 * 1024


class Grown(NamedTuple):
    """Megabytes of the child after the first report, after half of them and at the end; its peak; and the rest."""

    first: int
    half: int
    last: int
    peak: int
    children: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__)
    parser.add_argument("--reports", type=int, default=100)
    parser.add_argument("--orders", type=int, default=0, help="orders of a worker of orders; none by default")
    parser.add_argument("--rows", type=int, default=200_000, help="order lines, of which each report has some")
    options = parser.parse_args()
    with environment.servers():
        django.setup()
        logging.getLogger().setLevel(logging.ERROR)
        prepare(options.rows if options.reports else 0)
        if options.orders:
            sys.stdout.write(f"{measure_orders(options.orders)}\n")
        if options.reports:
            write_reports(options.reports)


def write_reports(count: int) -> None:
    sys.stdout.write("| | first | half | last | peak | processes | seconds |\n|---|--:|--:|--:|--:|--:|--:|\n")
    for name, words in SIDES.items():
        grown = measure(words, count)
        cells = [*map(str, grown[:-1]), f"{grown.seconds:.0f}"]
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")
        sys.stdout.flush()


def measure_orders(count: int) -> str:
    """Let one worker process so many orders, in lots of `WARM`; say how large its child was after each."""
    from orders.tasks import process_order

    from . import backlog, processes

    command = ["-m", "celery", "-A", "benchmarks.shop", "worker", "--queues", "orders", "--concurrency", "1"]
    known = set(psutil.Process().children())
    sizes = []
    with processes.running(*command, GATEWAY="inside"):
        worker = wait_for_worker(known)
        for _ in range(0, count, WARM):
            for pk in backlog.place(min(WARM, count)):
                process_order.delay(order_id=pk)
            backlog.wait_until_completed()
            [child] = worker.children()
            sizes.append(child.memory_info().rss / MEGABYTE)
    growth = 100 * (sizes[-1] / sizes[0] - 1)
    shown = ", ".join(f"{size:.0f}" for size in sizes)
    return f"The child that processed {count:,} orders, in MB after each {WARM:,}: {shown} ({growth:+.1f} %)"


def prepare(rows: int) -> None:
    from django.core.management import call_command

    from reports.models import Report

    from . import backlog, exports

    call_command("migrate", verbosity=0)
    backlog.stock_up()
    if rows:
        exports.sell(2025, rows)
    Report.objects.all().delete()


def measure(options: Sequence[str], count: int) -> Grown:
    from . import processes

    command = ["-m", "celery", "-A", "myproject", "worker", "--queues", "reports", "--concurrency", "1", *options]
    known = set(psutil.Process().children())
    with processes.running(*command):
        worker = wait_for_worker(known)
        begun = time.monotonic()
        ask(count)
        return watch(worker, count, begun)


def wait_for_worker(known: set[psutil.Process]) -> psutil.Process:
    from myproject.celery import app

    from . import processes

    processes.wait_for(lambda: bool(app.control.ping(timeout=1)), "the worker")
    return next(iter(process for process in psutil.Process().children() if "celery" in process.cmdline()))


def ask(count: int) -> None:
    """Ask for so many reports, each of some weeks of its own."""
    from accounts.models import User
    from reports.models import Report
    from reports.tasks import generate_report

    Report.objects.all().delete()
    person = User.objects.get()
    for number, (kind, form) in enumerate(islice(cycle(KINDS), count)):
        shorter, later = divmod(number, 180)
        days = {
            "start": date(2025, 1, 1) + timedelta(days=later),
            "end": date(2025, 12, 31) - timedelta(days=shorter),
        }
        report = Report.objects.create(requested_by=person, kind=kind, format=form, **days, **Report.lease.fresh())
        generate_report.delay(report_id=str(report.pk))


def watch(worker: psutil.Process, count: int, begun: float) -> Grown:
    """Look at the child ten times a second until all reports have ended."""
    from reports.models import Report

    from . import backlog

    after: dict[int, int] = {}
    pids, peak, ended = set[int](), 0, 0
    while ended < count and time.monotonic() < begun + backlog.HOUR:
        sizes = {child.pid: child.memory_info().rss // MEGABYTE for child in worker.children() if child.is_running()}
        pids |= sizes.keys()
        peak = max(peak, *sizes.values(), 0)
        ended = Report.objects.ended().count()
        after[ended] = max(sizes.values(), default=0)
        time.sleep(0.1)
    if ended < count:
        raise SystemExit(f"Only {ended} of {count} reports have ended within an hour.")
    half = min((number for number in after if number >= count // 2), default=count)
    first = min(number for number in after if number)
    return Grown(after[first], after[half], after[count], peak, len(pids), time.monotonic() - begun)


if __name__ == "__main__":
    main()
