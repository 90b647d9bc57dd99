"""Run what must hold everywhere on each Python, Django and PostgreSQL that this machine has: `make matrix`.

`docs/reference/versions.md` names what there is, and what was run.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# Each with the oldest Python that it takes.
DJANGOS = {"5.2": "3.11", "6.0": "3.12"}
# What the workflow `ci.yml` runs anyway.
IN_CI = [("3.11", "5.2"), ("3.12", "5.2"), ("3.13", "5.2")]
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt", "requirements-pdf.txt", "requirements-parquet.txt")
# One after another, these are the shop in little: journeys, kills, and a broker that is away.
TESTS = ["-m", "every_broker", "tests/orders", "tests/journeys", "tests/test_queues.py", "tests/test_try_it.py"]


class Cell(NamedTuple):
    python: str
    program: str
    django: str

    @property
    def name(self) -> str:
        return f"Python {self.python}, Django {self.django}"

    @property
    def folder(self) -> Path:
        return ROOT / "var" / "matrix" / f"python{self.python}-django{self.django}"


def cells() -> Iterator[Cell]:
    for python in PYTHONS:
        for django, oldest in DJANGOS.items():
            done = "CI" in os.environ and (python, django) in IN_CI
            if PYTHONS.index(python) >= PYTHONS.index(oldest) and not done and (program := found(python)):
                yield Cell(python, program, django)


def found(version: str) -> str | None:
    """Return the interpreter of that version, from the PATH or from pyenv; a name alone may lead to none."""
    candidates = [
        shutil.which(f"python{version}"),
        *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ]
    return next((path for path in candidates if path and works(path, version)), None)


def works(path: str, version: str) -> bool:
    done = subprocess.run([path, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=False)
    return done.stdout.startswith(f"{version}.")


def postgres() -> dict[str, str]:
    """Return the folders of the programs of each PostgreSQL of this machine, beside the wheel's own."""
    return {path.parent.name: str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))}


def install(cell: Cell) -> Path:
    """Return the Python of the cell's own environment, with the pinned requirements, but for its Django."""
    python = cell.folder / "bin" / "python"
    wanted = [f"Django=={cell.django}.*"]
    for name in REQUIREMENTS:
        lines = (ROOT / name).read_text().splitlines()
        wanted += [line for line in lines if re.match(r"\w", line) and not re.match("(?i)django==", line)]
    # What was made of other requirements is made anew.
    listed = cell.folder / "requirements"
    if not listed.exists() or listed.read_text().splitlines() != wanted:
        subprocess.run([cell.program, "-m", "venv", "--clear", cell.folder], check=True)
        listed.with_suffix(".new").write_text("\n".join(wanted))
        command: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
        ]
        subprocess.run([*command, "--requirement", listed.with_suffix(".new")], check=True)
        listed.with_suffix(".new").rename(listed)
    return python


def passes(python: Path | str, **variables: str) -> bool:
    environment = os.environ | variables | {"PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}
    commands: list[list[str | Path]] = [
        [python, "manage.py", "check", "--fail-level", "WARNING"],
        [python, "-m", "pytest", "-q", "-n", "2", *TESTS],
    ]
    return all(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0 for command in commands)


def main() -> None:
    results = {}
    for cell in cells():
        print(f"--- {cell.name}", flush=True)
        results[cell.name] = passes(install(cell))
    for version, programs in postgres().items():
        print(f"--- PostgreSQL {version}", flush=True)
        results[f"PostgreSQL {version}"] = passes(sys.executable, TEST_POSTGRES=programs)
    for name, passed in results.items():
        print(f"{'passed' if passed else 'FAILED'}: {name}")
    missing = [version for version in PYTHONS if not found(version)]
    print(f"Not on this machine: Python {', '.join(missing)}." if missing else "")
    raise SystemExit(not all(results.values()))


if __name__ == "__main__":
    main()
