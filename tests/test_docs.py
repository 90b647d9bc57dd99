"""What the documentation says of the code is true, and its sources are readable."""

import re
from pathlib import Path

import pytest
import yaml
from django.conf import settings
from django.core.management import call_command

from durable.checks.traps import TRAPS
from myproject.celery import app
from tests.guards import all_guards
from tests.test_env_example import example

ROOT = settings.BASE_DIR
WRITTEN = ("tasks.md", "environment.md", "celery_settings.md", "checks.md", "guards.md", "figures.md", "tutorials.md")
OURS = [path for path in ROOT.rglob("*.md") if not {".venv", "var", "node_modules"} & set(path.relative_to(ROOT).parts)]
PAGES = sorted(path for path in OURS if path.name not in WRITTEN)
PLACE = re.compile(r"`([\w/.-]+)`\s·\s`(\w+)`")
FILE = re.compile(r"`([\w.-]+(?:/[\w.-]+)+\.(?:py|md|yml|yaml|conf|ini|acl|json|html))`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def defines(path: str, name: str) -> bool:
    """Return whether the file defines a function, a class, a variable or a service of that name."""
    text = (ROOT / path).read_text()
    return bool(re.search(rf"^ *(?:(?:def|class) {name}\b|{name}(?::[^=\n]+)? =|{name}:$)", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_names_only_files_and_places_that_exist(page: Path) -> None:
    text = page.read_text()
    # What stands in var/ is written by the software, here or not yet.
    ours = [path for path in FILE.findall(text) if (ROOT / path.split("/")[0]).is_dir() and not path.startswith("var/")]

    # The threat model names tests as one does in that folder.
    assert [path for path in ours if not any((base / path).exists() for base in (ROOT, ROOT / "tests"))] == []
    assert [place for place in PLACE.findall(text) if not defines(*place)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_wraps_at_120_characters(page: Path) -> None:
    lines = enumerate(page.read_text().splitlines(), start=1)

    # A row of a table cannot be wrapped.
    assert [number for number, line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_each_section_of_the_glossary_says_where_the_code_answers() -> None:
    _, *sections = re.split("^## ", (ROOT / "docs" / "patterns" / "glossary.md").read_text(), flags=re.MULTILINE)

    assert len(sections) > 15
    assert [section.split("\n")[0] for section in sections if not PLACE.search(section)] == []


def test_reference_has_each_task_variable_and_check(tmp_path: Path) -> None:
    call_command("reference", tmp_path)

    def entries(page: str, pattern: str) -> set[str]:
        return set(re.findall(pattern, (tmp_path / page).read_text(), re.MULTILINE))

    assert entries("tasks.md", r"^## (.+)$") == {name for name in app.tasks if not name.startswith("celery.")}
    assert entries("environment.md", "^`([A-Z_]+)`") == set(example())
    assert entries("checks.md", r"^## (.+)$") == {trap.id for trap in TRAPS}
    assert [row for guard in all_guards() if (row := guard.practice) not in (tmp_path / "guards.md").read_text()] == []
    assert "CELERY_TASK_ACKS_LATE" in (tmp_path / "celery_settings.md").read_text()


def test_workflow_runs_the_versions_of_python_that_the_documentation_names() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    table = (ROOT / "docs" / "reference" / "versions.md").read_text()

    [named] = re.findall(r"^\| Python \| (.+?) \|", table, re.MULTILINE)

    assert workflow["jobs"]["run"]["strategy"]["matrix"]["python"] == named.split(", ")
