"""`make new` writes a project that passes its own checks and tests, and whose `make run` answers an inquiry."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests
from django.conf import settings

from tests.environment import PORTS
from tests.ports import free_offset
from tests.shop import answers, wait_for

pytestmark = [pytest.mark.operations, pytest.mark.timeout(900)]

HERE = Path(settings.BASE_DIR)
OURS = set(re.findall(r"^# ([A-Z_]+)=", (HERE / ".env.example").read_text(), re.MULTILINE))


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of this process without those that are about this project and its tests."""
    outside = {name: value for name, value in os.environ.items() if name not in OURS}
    kept = {name: value for name, value in outside.items() if not name.startswith(("DJANGO", "PYTEST", "DURABLE"))}
    return kept | variables


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "mine"
    subprocess.run([sys.executable, HERE / "starter" / "new.py", folder, "mine"], cwd=HERE, check=True)
    # The packages are here already; by the dates of the files `make` sees that it need not install them.
    (folder / ".venv").symlink_to(sys.prefix)
    for path in folder.glob("requirements*.txt"):
        os.utime(path, (0, 0))
    return folder


def make(project: Path, target: str) -> None:
    done = subprocess.run(
        ["make", target], cwd=project, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]


@contextmanager
def running(project: Path) -> Iterator[str]:
    """Run everything as in a terminal; return the address of the site."""
    offset = free_offset(*PORTS)
    with (project / "run.log").open("wb") as log:
        command, variables = ["make", "run"], environment(PORT_OFFSET=str(offset), INQUIRY_SECONDS="0")
        process = psutil.Popen(command, cwd=project, env=variables, stdout=log, stderr=log, start_new_session=True)
    site = f"http://localhost:{8000 + offset}"
    try:
        wait_for(lambda: answers(f"{site}/accounts/login/"), "the web server", 200)
        yield site
    finally:
        others = process.children(recursive=True)
        os.killpg(process.pid, signal.SIGTERM)
        _, left = psutil.wait_procs([process, *others], 60)
        for each in left:
            each.kill()


def logged_in(site: str) -> requests.Session:
    session = requests.Session()
    session.get(f"{site}/accounts/login/", timeout=30)
    person = {"login": "customer@example.com", "password": "mine"}
    answer = post(session, f"{site}/accounts/login/", **person)
    assert answer.ok, answer.text
    return session


def post(session: requests.Session, url: str, **fields: str) -> requests.Response:
    return session.post(url, {"csrfmiddlewaretoken": session.cookies["csrftoken"], **fields}, timeout=30)


def test_new_project_names_nothing_of_the_shop(project: Path) -> None:
    paths = [path for path in project.rglob("*") if path.suffix in {".py", ".html", ".yml", ".md"}]

    named = {path.name for path in paths if re.search(r"Lantern|lantern-loom|\b(the|a) shop\b|docs/", path.read_text())}

    assert len(paths) > 150
    assert named == set()
    assert not [name for name in ("accounts", "orders", "reports", "sandbox") if (project / name).exists()]


def test_new_project_passes_its_checks(project: Path) -> None:
    make(project, "check")


def test_new_project_passes_its_tests(project: Path) -> None:
    make(project, "test")


def test_new_project_answers_an_inquiry(project: Path) -> None:
    with running(project) as site:
        session = logged_in(site)
        post(session, site, text="Who is there?")

        wait_for(lambda: "Your question has 3 words." in session.get(site, timeout=30).text, "the answer")
        wait_for(lambda: "Subject: Your question is answered" in (project / "run.log").read_text(), "the mail")


@pytest.mark.parametrize("name", ["not-a-name", "class", "durable", "django"])
def test_make_new_refuses_names_that_are_no_package_of_its_own(name: str, tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, HERE / "starter" / "new.py", tmp_path / "mine", name]

    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "cannot be the name of a package" in done.stderr
    assert not (tmp_path / "mine").exists()
