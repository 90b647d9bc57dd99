"""`durable/` is proved without the shop, and keeps its main promise in a project that Django has just made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from tests.environment import HOME

pytestmark = [pytest.mark.operations, pytest.mark.timeout(600)]

SHOP = Path(settings.BASE_DIR)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing of the shop but `durable/`."""
    shutil.copytree(SHOP / "durable", tmp_path / "durable", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run the program in a process that knows the tests' PostgreSQL and nothing of the shop's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY", "DJANGO", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=kept | variables, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


def database(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name}")
    return f"postgres://postgres@/{HOME}/run/{name}"


@pytest.mark.django_db(transaction=True)
def test_durable_is_proved_without_the_shop(folder: Path) -> None:
    pytest_ini = "durable/tests/pytest.ini"
    variables = {"DATABASE_URL": database("durable_alone"), "DURABLE_TESTS_HOME": str(folder)}

    out = run("-m", "pytest", "-c", pytest_ini, "--rootdir", ".", "durable/tests", cwd=folder, **variables)

    assert " passed" in out
    assert "failed" not in out
    assert "skipped" not in out


@pytest.mark.django_db(transaction=True)
def test_durable_keeps_its_promise_in_a_new_project(folder: Path) -> None:
    run("-m", "django", "startproject", "fresh", ".", cwd=folder)
    added = (
        "from durable.tests import settings as tests\n"
        "globals().update({name: vars(tests)[name] for name in dir(tests) if name.startswith(('CELERY', 'HOME'))})\n"
        "DATABASES = tests.DATABASES\nINSTALLED_APPS += tests.INSTALLED_APPS\n"
    )
    with (folder / "fresh" / "settings.py").open("a") as file:
        file.write(added)
    variables = {"DATABASE_URL": database("durable_fresh"), "DURABLE_TESTS_HOME": str(folder)}
    variables["DJANGO_SETTINGS_MODULE"] = "fresh.settings"

    run("manage.py", "check", cwd=folder, **variables)
    test = "durable/tests/test_worker.py"
    out = run("-m", "pytest", "--rootdir", ".", "-c", "durable/tests/pytest.ini", test, cwd=folder, **variables)

    assert "2 passed" in out
