"""Each alert rule has its tests, its paragraph, and metrics that the shop really has."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from myproject.live import metrics as live
from myproject.monitoring import gauges, metrics

DEPLOY = settings.BASE_DIR / "deploy"
GROUPS = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
TESTS = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yml").read_text())["tests"]
PANELS = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
RUNBOOK = settings.BASE_DIR / "docs" / "operations" / "alerts.md"
METRICS = RUNBOOK.with_name("metrics.md").read_text()
OPERATIONS = "".join(page.read_text() for page in RUNBOOK.parent.glob("*.md"))
PROMTOOL = shutil.which("promtool")


def by_name(rule: dict[str, Any]) -> str:
    return str(rule["alert"])


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's package prometheus, on the PATH")
def test_rules_do_as_their_tests_say() -> None:
    command = ["promtool", "test", "rules", str(DEPLOY / "prometheus" / "rules_test.yml")]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's package prometheus, on the PATH")
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    # Where the container has the token.
    config = (DEPLOY / "prometheus" / "prometheus.yml").read_text().replace("/tmp/metrics_token", "metrics_token")
    (tmp_path / "metrics_token").write_text("secret")
    (tmp_path / "rules.yml").write_text((DEPLOY / "prometheus" / "rules.yml").read_text())
    (tmp_path / "prometheus.yml").write_text(config)

    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's package prometheus, on the PATH")
def test_prometheus_can_read_each_query_of_the_dashboard(tmp_path: Path) -> None:
    # As rules, which promtool parses; Grafana fills in the interval.
    rules = [
        {"record": f"shop:panel{n}", "expr": query.replace("$__rate_interval", "1m")} for n, query in enumerate(QUERIES)
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    done = subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not(rule: dict[str, Any]) -> None:
    cases = [case for test in TESTS for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]

    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_alert_leads_to_a_paragraph_that_says_what_to_do(rule: dict[str, Any]) -> None:
    page, anchor = rule["annotations"]["runbook"].split("#")

    paragraph = re.search(rf"^## {rule['alert']}\n\n(.+?)\n(?=\n#|\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)

    assert settings.BASE_DIR / page == RUNBOOK
    assert anchor == rule["alert"].lower()
    assert paragraph is not None
    assert len(paragraph[1]) > 100


def test_no_paragraph_is_about_an_alert_that_does_not_exist() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE) == [rule["alert"] for rule in RULES]


@pytest.mark.django_db
def test_metrics_of_rules_panels_and_documentation_are_those_that_are_exported() -> None:
    exported = metrics_exported()

    for words in (*(rule["expr"] for rule in RULES), *QUERIES, OPERATIONS):
        # Behind a slash it is a database of PgBouncer's.
        used = {re.sub("_(total|bucket)$", "", name) for name in re.findall(r"(?<!/)\bshop_\w+", words)}
        assert used <= exported
        assert used or re.search(r"\bup\b", words)

    assert {name.removesuffix("_total") for name in re.findall(r"`(shop_\w+)", METRICS)} == exported


def metrics_exported() -> set[str]:
    """Return the names of all metrics: asked in this thread, which sees the test's database."""
    counted = {family.name for counts in (metrics.COUNTED, live.COUNTED) for family in counts.collect()}
    questions = [*gauges.database.questions, *gauges.the_broker.questions]
    return counted | {found.name for question in questions for found in question()} | {"shop_up"}
