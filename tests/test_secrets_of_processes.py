"""Compose, systemd and Kubernetes give each process the secrets that it uses, and no other's."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.containers import ROOT, production
from tests.test_env_example import example
from tests.units import FAMILIES, SERVICES, directives

# Which process uses which: web takes webhooks and gives out files, the worker of each family does what its tasks do.
NEEDS: dict[str, set[str]] = {
    "web": {"STRIPE_WEBHOOK_SECRET", "STORAGE_URL", "METRICS_TOKEN"},
    "worker-orders": {"STRIPE_API_KEY", "METRICS_TOKEN"},
    "worker-mail": {"EMAIL_URL", "ALERT_URLS", "METRICS_TOKEN"},
    "worker-reports": {"STORAGE_URL", "METRICS_TOKEN"},
    "worker-default": {"STORAGE_URL", "CRM_TOKEN", "WAREHOUSE_TOKEN", "METRICS_TOKEN"},
    "beat": {"METRICS_TOKEN"},
    "live": {"METRICS_TOKEN"},
    "flower": set(),
    "migrate": set(),
}
# Sessions, links and queues are everybody's.
COMMON = {
    *("SECRET_KEY", "SECRET_KEY_FALLBACKS", "DATABASE_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "SENTRY_DSN"),
    "LIVE_DATABASE_URL",
    "CELERY_SECURITY_KEY",
}
# Of Compose's own servers.
SERVERS = {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
SECRETS = {name for needed in NEEDS.values() for name in needed}


def of_compose() -> dict[str, set[str]]:
    dotenv = {name: f"the-{name}" for name in SECRETS | SERVERS}
    services = production(dotenv)["services"]
    given = {name: dotenv | it["environment"] for name, it in services.items() if "env_file" in it}
    return {name: {key for key in dotenv if env[key] == dotenv[key]} for name, env in given.items()}


def of_systemd() -> dict[str, set[str]]:
    names = {unit: unit.removeprefix("shop-").removesuffix(".service").replace("@", "-") for unit in SERVICES}
    unset = {name: " ".join(directives(unit).get("UnsetEnvironment", [])).split() for unit, name in names.items()}
    return {name: SECRETS - set(withheld) for name, withheld in unset.items()}


def of_kubernetes() -> dict[str, set[str]]:
    folder = ROOT / "deploy" / "kubernetes"

    def held(workload: dict[str, Any]) -> set[str]:
        env = workload["spec"]["template"]["spec"]["containers"][0]["env"]
        return SECRETS - {each["name"] for each in env if each["value"] == ""}

    bases = {name: folder / "base" / f"{name}.yaml" for name in ("web", "live", "beat", "flower", "migrate")}
    found = {name: held(next(yaml.safe_load_all(path.read_text()))) for name, path in bases.items()}
    for name in FAMILIES:
        family = yaml.safe_load((folder / "families" / name / "kustomization.yaml").read_text())
        found[f"worker-{name}"] = held(yaml.safe_load(family["patches"][0]["patch"]))
    return found


@pytest.mark.parametrize("place", [of_compose, of_systemd, of_kubernetes])
def test_each_process_has_the_secrets_that_it_uses_and_no_other(place: Callable[[], dict[str, set[str]]]) -> None:
    assert place() == NEEDS


def test_pod_that_waits_for_migrations_has_none_of_them() -> None:
    [patch] = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "base" / "after-migrations.yaml").read_text())

    assert {each["name"] for each in patch["value"][0]["env"] if each["value"] == ""} == SECRETS


def test_each_secret_of_the_example_is_given_to_somebody_on_purpose() -> None:
    kinds = ("KEY", "FALLBACKS", "SECRET", "TOKEN", "PASSWORD", "DSN", "BACKEND", "DATABASE_URL", "BROKER_URL")
    named = {name for name in example() if name.endswith(kinds)}

    assert named <= SECRETS | COMMON | SERVERS


def test_shop_starts_without_the_secrets_of_other_processes() -> None:
    production = {"DEBUG": "false", "SECRET_KEY": "x" * 50, "ALLOWED_HOSTS": "x"} | dict.fromkeys(SECRETS, "")

    done = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=ROOT, env=os.environ | production, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
