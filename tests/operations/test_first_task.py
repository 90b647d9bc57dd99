"""The end of docs/how-to/first-task.md works: its app in a copy of the shop, with its tests and a real worker."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guards import ROOT

STEPS = ROOT / "docs" / "how-to" / "first_task"

pytestmark = pytest.mark.operations


@pytest.mark.timeout(600)
def test_first_task_works_as_its_page_ends(tmp_path: Path) -> None:
    code = tmp_path / "code"
    shutil.copytree(ROOT, code, ignore=shutil.ignore_patterns(".git", ".venv", "var", "__pycache__"))
    shutil.copytree(STEPS / "invoices", code / "invoices")
    shutil.copy(STEPS / "test_invoices.py", code / "tests")
    settings = code / "myproject" / "settings.py"
    settings.write_text(re.sub(r'^(APPS = \[.*"reports")', r'\1, "invoices"', settings.read_text(), flags=re.MULTILINE))

    def run(*words: str) -> None:
        outside = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "VAR_DIR")}
        done = subprocess.run(
            [sys.executable, *words], cwd=code, env=outside, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("manage.py", "makemigrations", "invoices", "--skip-checks")
    run("manage.py", "check", "--fail-level", "WARNING")
    run("-m", "ruff", "check", "invoices", "tests/test_invoices.py")
    run("-m", "pytest", "-q", "-n0", "tests/test_invoices.py", "tests/test_proofs.py", "-k", "invoice or missing")
