"""`make run` starts wherever a checkout lies: long paths, other letters, other owners, other habits of a terminal."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from django.conf import settings

from tests.operations.test_run import Run
from tests.shop import answers, wait_for

pytestmark = [pytest.mark.operations, pytest.mark.timeout(400)]

SECONDS = 200
MAKE = ["make", "run"]
# Who has no account: the files of a shared folder, or of another machine.
SOMEBODY = 12_345
# Of what the tests have set, nothing may reach it.
OURS = ("VAR_DIR", "MEDIA_ROOT", "DEBUG", "DATABASE_URL", "CELERY_BROKER_URL", "DJANGO_ALLOW_ASYNC_UNSAFE")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away, and keeps others out of them")


def checkout(folder: Path) -> Path:
    """Copy what git knows, with the packages that are installed already."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=settings.BASE_DIR, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(settings.BASE_DIR / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    # By the dates of the files `make` sees that it need not install anything.
    for path in folder.glob("requirements*.txt"):
        os.utime(path, (0, 0))
    return folder


def deep(base: Path) -> Path:
    return checkout(base / ("d" * (200 - len(str(base)) - 1)))


def spaces_and_letters(base: Path) -> Path:
    return checkout(base / "mein Läden & Geschäft" / "提灯 $HOME 'x'")


def symbolic_link(base: Path) -> Path:
    (base / "link").symlink_to(checkout(base / "real"))
    return base / "link"


def somebody_elses(base: Path) -> Path:
    folder = checkout(base / "theirs")
    for path in [folder, *folder.rglob("*")]:
        os.lchown(path, SOMEBODY, SOMEBODY)
    return folder


def closed_to_others(base: Path) -> Path:
    folder = checkout(base / "root" / "shop")
    folder.parent.chmod(stat.S_IRWXU)
    return folder


@contextmanager
def running(folder: Path, place: Path, command: list[str] = MAKE, without: tuple[str, ...] = ()) -> Iterator[Run]:
    """Run the shop of that checkout until the block ends, and leave no process behind."""
    run = Run(folder, place.name[:8], command=command, code=place)
    for name in (*OURS, *without):
        run.environment.pop(name, None)
    with run:
        wait_for(lambda: answers(run.url) or run.process.poll() is not None, "the shop", SECONDS)
        assert run.process.poll() is None, run.said()[-3000:]
        everybody = run.everybody()
        yield run
        run.press_ctrl_c()
        assert psutil.wait_procs(everybody, 30)[1] == []


@pytest.mark.parametrize(
    "place",
    [
        deep,
        spaces_and_letters,
        symbolic_link,
        pytest.param(somebody_elses, marks=as_root),
        pytest.param(closed_to_others, marks=as_root),
    ],
)
def test_run_starts_in_any_place(place: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = place(tmp_path)

    with running(tmp_path, folder) as run:
        wait_for(lambda: answers(run.url.replace("/accounts/login/", "/healthz/ready")), "the shop to be ready")

    assert (folder / "var").is_dir()


def test_run_starts_without_a_home_and_with_a_umask_that_keeps_others_out(tmp_path: Path) -> None:
    command = ["sh", "-c", "umask 077; exec make run"]

    with running(tmp_path, checkout(tmp_path / "shop"), command, ("HOME", "USER", "LOGNAME")) as run:
        assert answers(run.url)


def test_second_checkout_runs_beside_the_first(tmp_path: Path) -> None:
    one, other = (checkout(tmp_path / name) for name in ("one", "other"))

    with running(tmp_path, one) as first, running(tmp_path, other) as second:
        assert first.offset != second.offset
        assert answers(first.url)
