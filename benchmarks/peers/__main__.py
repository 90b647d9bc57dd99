"""The same order under each engine, and each of them killed: `python -m benchmarks.peers`. See README.md."""

import argparse
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

# Where the shop's own requirements are not: none of these is one of them.
FOLDER = Path("var/peers").resolve()
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
ENGINES = ("celery", "dramatiq", "huey", "rq", "taskiq", "procrastinate", "django_tasks", "dbos")


def main() -> None:
    options = read_options()
    install()
    # For this process and those that it starts; an engine that is not there fails when it is imported.
    sys.path.append(str(FOLDER))
    os.environ["PYTHONPATH"] = str(FOLDER)
    from benchmarks import environment

    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.peers.settings"
    with environment.servers():
        run(options)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument("--orders", type=int, default=2000, help="orders in the backlog, each with a message")
    parser.add_argument("--rounds", type=int, default=5, help="of the backlog; 0 leaves it out")
    parser.add_argument("--kills", type=int, default=10, help="kills among a thousand orders; 0 leaves them out")
    parser.add_argument("--only", nargs="*", default=ENGINES, choices=ENGINES, metavar="ENGINE")
    parser.add_argument("--json", type=Path, default=Path("var/peers.json"), help="a file for the raw figures")
    return parser.parse_args()


def install() -> None:
    """Install the peers once; where that fails, each of them alone, so that one that is not to be had stops none."""
    installed = FOLDER / REQUIREMENTS.name
    if installed.exists() and installed.read_bytes() == REQUIREMENTS.read_bytes():
        return
    if pip("--requirement", str(REQUIREMENTS)):
        for line in REQUIREMENTS.read_text().splitlines():
            if "==" in line:
                pip(line)
    installed.write_bytes(REQUIREMENTS.read_bytes())


def pip(*what: str) -> int:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade", "--target", str(FOLDER)]
    return subprocess.run([sys.executable, "-m", "pip", "install", *options, *what], check=False).returncode


def run(options: argparse.Namespace) -> None:
    import django

    django.setup()
    from django.core.management import call_command

    from benchmarks import backlog, report

    from . import table

    call_command("migrate", verbosity=0)
    backlog.stock_up()
    circumstances = report.circumstances()
    report.write(report.head(circumstances))
    found = table.Table(load(options.only))
    found.fill(options.orders, options.rounds, options.kills)
    report.write(str(found))
    report.keep(options.json, {**circumstances, "failed": found.failed}, found.rows())


def load(names: list[str]) -> dict[str, ModuleType | str]:
    """Return each engine, ready to be used, or why it is not."""
    engines: dict[str, ModuleType | str] = {}
    for name in names:
        try:
            engines[name] = engine = import_module(f"benchmarks.peers.{name}")
            getattr(engine, "prepare", bool)()
        except ImportError as error:
            engines[name] = f"not installed ({error})"
    return engines


if __name__ == "__main__":
    main()
