"""Metrics keep their counts when a process is killed, and answer while the database is frozen."""

import os
import signal
import subprocess
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from django.conf import settings

from myproject import embedded
from myproject.celery import app
from myproject.monitoring import metrics
from myproject.tasks import add
from tests.shop import METRICS_PORTS, Shop, wait_for
from tests.test_metrics import ADD, read, value

pytestmark = pytest.mark.operations


def folder_of(pid: int) -> Path:
    """Return the folder that a family's first process holds open."""
    links = (str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
    return Path(next(link for link in links if metrics.FOLDER in link))


def test_web_keeps_its_counts_when_a_process_is_killed(shop: Shop) -> None:
    page = {"view": "account_login", "status": "2xx"}

    def pids() -> set[str]:
        return set(Path(f"/proc/{shop.running['web'].pid}/task/{shop.running['web'].pid}/children").read_text().split())

    def count() -> float:
        return value(read(settings.PORT), "shop_requests_total", **page)

    def ask(times: int) -> None:
        for _ in range(times):
            urlopen(f"{settings.SITE_URL}/accounts/login/", timeout=10).close()

    ask(20)
    before, old = count(), pids()
    files = {path.name for path in folder_of(shop.running["web"].pid).glob("*.db")}

    for pid in old:
        os.kill(int(pid), signal.SIGKILL)
    wait_for(lambda: len(pids() - old) == len(old), "new processes")
    shop.wait_until_ready()
    ask(20)

    # `wait_until_ready` has asked for that page, too.
    assert before + 20 <= count() <= before + 25
    assert {path.name for path in folder_of(shop.running["web"].pid).glob("*.db")} == files


def test_worker_keeps_its_counts_when_a_child_is_killed(shop: Shop) -> None:
    port, main = METRICS_PORTS["worker"], shop.running["worker"].pid

    def children() -> set[int]:
        stats = wait_for(app.control.inspect(timeout=1, limit=1).stats, "the worker's answer")
        return {pid for worker in stats.values() for pid in worker["pool"]["processes"]}

    def count() -> float:
        return value(read(port), "shop_tasks_total", **ADD)

    start = count()
    for _ in range(20):
        add.delay(1, 2)
    wait_for(lambda: count() == start + 20, "twenty tasks")
    old, files = children(), {path.name for path in folder_of(main).glob("*.db")}

    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(children() - old) == len(old), "new children")
    assert count() == start + 20
    for _ in range(20):
        add.delay(1, 2)

    wait_for(lambda: count() == start + 40, "twenty more")
    new = {path.name for path in folder_of(main).glob("*.db")}
    assert {name for name in new if "child" in name} == {name for name in files if "child" in name}
    # They have closed the port: only the main process would answer there.
    assert not any(listens(pid, port) for pid in children())
    assert listens(main, port)


def listens(pid: int, port: int) -> bool:
    sockets = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" and f"socket:[{row[9]}]" in sockets for row in rows)


def test_beat_works_on_when_its_port_is_taken(shop: Shop, tmp_path: Path) -> None:
    said = tmp_path / "log"
    environment = shop.environment() | {"METRICS_PORT": str(METRICS_PORTS["worker"])}

    with said.open("wb") as log:
        beat = subprocess.Popen(
            shop.commands["beat"].split(), cwd=settings.BASE_DIR, env=environment, stdout=log, stderr=log
        )
        wait_for(lambda: "task_enqueued" in said.read_text(), "it to work")
    beat.terminate()
    beat.wait(20)

    assert said.read_text().count("No metrics: 127.0.0.1") == 1
    assert "Traceback" not in said.read_text()


def test_frozen_database_is_a_metric_while_all_pages_wait_for_it(
    shop: Shop, servers: tuple[embedded.Postgres, embedded.Redis]
) -> None:
    assert servers[0].process
    parent = psutil.Process(servers[0].process.pid)
    family = [parent, *parent.children(recursive=True)]
    pages = [HTTPConnection("127.0.0.1", settings.PORT) for _ in range(16)]
    try:
        for process in family:
            process.suspend()
        for page in pages:
            page.request("GET", "/")

        wait_for(
            lambda: value(text := read(settings.PORT), "shop_up") == value(text, "shop_up", part="broker") == 1, "it"
        )
    finally:
        for process in family:
            process.resume()
    assert {page.getresponse().status for page in pages} <= {200, 500}
    shop.wait_until_ready()
    wait_for(lambda: value(read(settings.PORT), "shop_up") == 2, "the database to answer again")
