"""Django's own tasks do under a `kill -9` what docs/how-to/django-tasks.md says."""

import os
import shlex
import subprocess
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from django.conf import settings

from myproject import embedded
from tests.matrix import PYTHONS, found

pytestmark = pytest.mark.operations

FOLDER = settings.BASE_DIR / "docs" / "how-to"
PROGRAM = FOLDER / "tasks_of_django.py"
# Django 6.0 needs a newer one than the shop does.
PYTHON = next(filter(None, map(found, PYTHONS[1:])), None)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Return a Python that has what the first lines of the program say."""
    if PYTHON is None:
        pytest.skip(f"needs one of Python {', '.join(PYTHONS[1:])}")
    subprocess.run([PYTHON, "-m", "venv", tmp_path / "venv"], check=True)
    install = next(line for line in PROGRAM.read_text().splitlines() if line.startswith("pip install "))
    made = tmp_path / "venv" / "bin" / "python"
    subprocess.run([made, "-m", *shlex.split(install), "--quiet", "--disable-pip-version-check"], check=True)
    return made


@pytest.fixture
def database(servers: object) -> str:
    folder = str(embedded.socket_dir(settings.VAR_DIR))
    with psycopg.connect(host=folder, user="postgres", dbname="postgres", autocommit=True) as server:
        server.execute("CREATE DATABASE tasks_of_django")
    return f"postgres://postgres@{quote(folder, safe='')}/tasks_of_django"


def test_task_of_a_killed_worker_is_lost_and_the_row_ends(python: Path, database: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}

    said = subprocess.run(
        [python, PROGRAM], env=environment | {"DATABASE_URL": database}, capture_output=True, text=True, check=True
    )

    # The workers speak between.
    told = [line for line in said.stdout.splitlines() if line.startswith("After ")]
    page = " ".join((FOLDER / "django-tasks.md").read_text().split())
    assert len(told) == 2
    assert " ".join(told) in page
