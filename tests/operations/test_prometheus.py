"""The real Prometheus reads the real shop, by the files of `deploy/`: rules are evaluated, panels have data."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen
from xml.etree import ElementTree

import pytest
import yaml
from django.conf import settings

from myproject.management.commands import monitoring
from myproject.tasks import add, fail, fail_twice
from orders.tasks import process_order
from tests.factories import make_product, make_user, place_order
from tests.ports import free_port
from tests.shop import METRICS_PORTS, Shop, answers, wait_for

DEPLOY = settings.BASE_DIR / "deploy"
PROMETHEUS = shutil.which("prometheus")
PORT, ALERTMANAGER_PORT = free_port(), free_port()
PORTS = {"web": settings.PORT, "live": int(settings.LIVE_BIND.rpartition(":")[2]), **METRICS_PORTS}
PANELS = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
COMPLETED = 'max(shop_orders_ended{status="completed"})'
GROUPS = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]

pytestmark = [
    pytest.mark.operations,
    pytest.mark.skipif(PROMETHEUS is None, reason="needs prometheus, of Debian's package, on the PATH"),
]


def ask(path: str, **parameters: str) -> Any:
    with urlopen(f"http://127.0.0.1:{PORT}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
        return json.load(answer)["data"]


def config(folder: Path) -> Path:
    """Write the file of `deploy/` with the addresses and the folders of this test, and no patience."""
    read = monitoring.prometheus(PORTS, f"127.0.0.1:{ALERTMANAGER_PORT}", folder)
    read["global"] = {"scrape_interval": "2s", "evaluation_interval": "1s"}
    (folder / "metrics_token").write_text(settings.METRICS_TOKEN)
    for job in read["scrape_configs"]:
        job["scrape_timeout"] = "2s"
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(read))
    return path


@pytest.fixture
def prometheus(shop: Shop, tmp_path: Path) -> Iterator[None]:
    options = {
        "config.file": config(tmp_path),
        "storage.tsdb.path": tmp_path / "data",
        "web.listen-address": f"127.0.0.1:{PORT}",
        "log.level": "warn",
    }
    with (tmp_path / "log").open("wb") as log:
        command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{PORT}/-/ready"), "Prometheus")
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(20)


def make_traffic() -> None:
    product = make_product(stock=100)
    for _ in range(3):
        process_order.delay(order_id=place_order(make_user(), product).pk)
    for task in (fail, fail_twice):
        task.delay()
    add.delay(1, 2)
    urlopen(f"{settings.SITE_URL}/accounts/login/", timeout=10).close()


def has_data(query: str) -> bool:
    found = ask("query", query=query.replace("$__rate_interval", "1m"))
    return any(sample["value"][1] != "NaN" for sample in found["result"])


def test_prometheus_reads_the_shop_evaluates_each_rule_and_has_data_for_each_panel(
    prometheus: None, tmp_path: Path
) -> None:
    missing = {panel["title"]: target["expr"] for panel in PANELS for target in panel.get("targets", [])}

    def is_complete() -> bool:
        make_traffic()
        for title in [title for title, query in missing.items() if has_data(query)]:
            del missing[title]
        return not missing

    try:
        wait_for(is_complete, "data for each panel", 90)
    except AssertionError:
        pytest.fail(f"no data for {missing}, targets {ask('targets')['activeTargets']}")

    evaluated = {rule["name"]: rule["health"] for group in ask("rules")["groups"] for rule in group["rules"]}
    assert evaluated == {rule["alert"]: "ok" for group in GROUPS for rule in group["rules"]}
    health = {target["labels"]["job"]: target["health"] for target in ask("targets")["activeTargets"]}
    assert health == dict.fromkeys(PORTS, "up")
    wait_for(lambda: float(ask("query", query=COMPLETED)["result"][0]["value"][1]) >= 1, "a completed order")
    assert panels_with_lines(tmp_path / "all.svg") == [p["title"] for p in PANELS if p["type"] == "timeseries"]


def panels_with_lines(file: Path) -> list[str | None]:
    """Have the dashboard drawn; return the titles of the panels that show something."""
    options = ["--prometheus", f"http://127.0.0.1:{PORT}", "--since", "2", "--out", str(file)]
    subprocess.run([sys.executable, "-m", "benchmarks.dashboard", *options], cwd=settings.BASE_DIR, check=True)
    svg = "{http://www.w3.org/2000/svg}"
    panels = ElementTree.parse(file).iter(f"{svg}g")
    return [panel.findtext(f"{svg}text") for panel in panels if panel.find(f"{svg}polyline") is not None]
