"""Prometheus, Alertmanager and Grafana beside `make run`, each where its program is on the PATH."""

import os
import shlex
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from myproject import processes
from myproject.management.commands import run

DEPLOY = settings.BASE_DIR / "deploy"
NAMES = {"prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
PORTS = {name: port + settings.PORT_OFFSET for name, port in NAMES.items()}
# As Debian calls it.
OTHER_NAMES = {"alertmanager": "prometheus-alertmanager"}
# Where Grafana's own packages put what belongs to the program.
GRAFANA_HOME = "/usr/share/grafana"


class Command(BaseCommand):
    help = "Run Prometheus, Alertmanager and Grafana beside `make run`, where they are on the PATH."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        found = {name: path for name in NAMES if (path := program(name))}
        if not found:
            raise CommandError(
                f"None of {', '.join(NAMES)} is on the PATH; docs/operations/metrics.md has another way."
            )
        for name in NAMES:
            where = f"http://localhost:{PORTS[name]}" if name in found else "not on the PATH"
            self.stdout.write(f"  {name:<13} {where}")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            supervise(found)


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(OTHER_NAMES.get(name, name))


def supervise(programs: Mapping[str, str]) -> None:
    folder = settings.VAR_DIR / "monitoring"
    write(folder)
    guard = processes.Guard(folder / "processes.json")
    guard.start()
    supervisor = processes.Supervisor(guard, processes.Watch(list), revive=lambda: None, others=list)
    for name, program in programs.items():
        supervisor.add(name, shlex.join([program, *words(name, folder)]), environment(), folder, lambda path: False)
    try:
        supervisor.run()
    finally:
        guard.stop()


def write(folder: Path) -> None:
    """Write the files of `deploy/` with the addresses of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics_token").write_text(run.METRICS_TOKEN)
    targets = {"web": settings.PORT, "live": int(settings.LIVE_BIND.rpartition(":")[2]), **run.METRICS_PORTS}
    alertmanager = f"127.0.0.1:{PORTS['alertmanager']}"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(prometheus(targets, alertmanager, folder)))
    told = yaml.safe_load((DEPLOY / "prometheus" / "alertmanager.yml").read_text())
    told["receivers"][0]["webhook_configs"][0]["url"] = f"http://127.0.0.1:{settings.SANDBOX_PORT}/chat"
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(told))


def prometheus(targets: Mapping[str, int], alertmanager: str, folder: Path) -> dict[str, Any]:
    """Return the configuration of `deploy/` for processes of this machine, by the port of each job."""
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    content["rule_files"] = [str(DEPLOY / "prometheus" / "rules.yml")]
    content["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    for job in content["scrape_configs"]:
        job["authorization"] = {"credentials_file": str(folder / "metrics_token")}
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]
    return content


def words(name: str, folder: Path) -> list[str]:
    address = f"127.0.0.1:{PORTS[name]}"
    if name == "prometheus":
        data = f"--storage.tsdb.path={folder / 'data'}"
        return [f"--config.file={folder / 'prometheus.yml'}", data, f"--web.listen-address={address}"]
    if name == "alertmanager":
        data = f"--storage.path={folder / 'alertmanager'}"
        file = f"--config.file={folder / 'alertmanager.yml'}"
        # Alone: it looks for no others.
        return [file, data, f"--web.listen-address={address}", "--cluster.listen-address="]
    return ["server", "--homepath", GRAFANA_HOME]


def environment() -> dict[str, str]:
    """Return the variables of Grafana, which the others do not read."""
    folder = settings.VAR_DIR / "monitoring" / "grafana"
    return os.environ | {
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(PORTS["grafana"]),
        "GF_PATHS_DATA": str(folder),
        "GF_PATHS_LOGS": str(folder),
        "GF_PATHS_PROVISIONING": str(DEPLOY / "grafana" / "provisioning"),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(DEPLOY / "grafana" / "dashboard.json"),
        "PROMETHEUS_URL": f"http://127.0.0.1:{PORTS['prometheus']}",
        "DASHBOARDS": str(DEPLOY / "grafana"),
    }
