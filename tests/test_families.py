"""Compose, systemd and Kubernetes start the same commands, and each lets a worker finish its longest task."""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import pytest
import yaml
from django.conf import settings

from myproject.queues import QUEUES
from tests.containers import ROOT, production
from tests.families import longest_limits, seconds
from tests.units import FAMILIES, SERVICES, command, directives


class Process(NamedTuple):
    command: list[str]
    grace: int
    # On TERM, instead of finishing them.
    hands_tasks_back: bool = False


def of_compose() -> dict[str, Process]:
    services = production({})["services"]
    ours = {
        name: it
        for name, it in services.items()
        if name not in ("postgres", "redis", "migrate") and "profiles" not in it
    }
    return {
        name: Process(
            it["command"].split(),
            seconds(it.get("stop_grace_period", "10s")),
            it["environment"].get("REMAP_SIGTERM") == "SIGQUIT",
        )
        for name, it in ours.items()
    }


def of_systemd() -> dict[str, Process]:
    return {
        unit.removeprefix("shop-").removesuffix(".service").replace("@", "-"): Process(
            [word.removeprefix("/opt/lantern-loom/.venv/bin/").replace("@here", "@%h") for word in command(unit)],
            seconds(directives(unit)["TimeoutStopSec"][-1]),
            "REMAP_SIGTERM=SIGQUIT" in directives(unit).get("Environment", []),
        )
        for unit in SERVICES
        if unit != "shop-migrate.service"
    }


def of_kubernetes() -> dict[str, Process]:
    folder = ROOT / "deploy" / "kubernetes"
    found = {}
    for name in ("web", "live", "beat", "flower"):
        pod = next(yaml.safe_load_all((folder / "base" / f"{name}.yaml").read_text()))["spec"]["template"]["spec"]
        found[name] = Process(pod["containers"][0]["args"], pod["terminationGracePeriodSeconds"])
    worker = next(yaml.safe_load_all((folder / "worker" / "worker.yaml").read_text()))
    args = worker["spec"]["template"]["spec"]["containers"][0]["args"]
    for name in FAMILIES:
        family = yaml.safe_load((folder / "families" / name / "kustomization.yaml").read_text())
        pod = yaml.safe_load(family["patches"][0]["patch"])["spec"]["template"]["spec"]
        env = {pair["name"]: pair["value"] for pair in pod["containers"][0]["env"]}
        found[f"worker-{name}"] = Process(
            [reduce(lambda text, pair: text.replace(f"$({pair[0]})", pair[1]), env.items(), word) for word in args],
            pod["terminationGracePeriodSeconds"],
            env.get("REMAP_SIGTERM") == "SIGQUIT",
        )
    return found


PLACES = {"compose": of_compose, "systemd": of_systemd, "kubernetes": of_kubernetes}
place = pytest.mark.parametrize("processes", PLACES.values(), ids=PLACES.keys())


def queues(process: Process) -> list[str]:
    return process.command[process.command.index("--queues") + 1].split(",")


def workers(processes: dict[str, Process]) -> dict[str, Process]:
    return {name: process for name, process in processes.items() if name.startswith("worker-")}


def test_all_places_start_the_same_commands() -> None:
    commands = [{name: it.command for name, it in processes().items()} for processes in PLACES.values()]

    assert commands[0] == commands[1] == commands[2]


@place
def test_workers_read_the_queues_of_their_family(processes: Callable[[], dict[str, Process]]) -> None:
    consumed = [
        (queue, name.removeprefix("worker-"))
        for name, process in workers(processes()).items()
        for queue in queues(process)
    ]

    assert sorted(consumed) == sorted((name, queue.family) for name, queue in QUEUES.items())


@place
def test_workers_may_finish_the_longest_task_of_their_queues(processes: Callable[[], dict[str, Process]]) -> None:
    limits, _ = longest_limits()

    for name, process in workers(processes()).items():
        if not process.hands_tasks_back:
            longest = max(limits[queue] for queue in queues(process))
            assert longest < process.grace <= longest * 2, name


@place
def test_workers_of_reports_alone_hand_their_tasks_back(processes: Callable[[], dict[str, Process]]) -> None:
    back = {name: process for name, process in workers(processes()).items() if process.hands_tasks_back}

    assert list(back) == ["worker-reports"]
    assert back["worker-reports"].grace > 2 * settings.CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT
