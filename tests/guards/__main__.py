"""Take out each guard in turn, in a copy of the tree, and see a test that it names turn red: `make guards`.

A guard whose tests stay green is an entry that lies, and the run is red. So it is when the tests do not fail but break:
a test that cannot even be imported notices nothing.
"""

import argparse
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import cache_from_source
from pathlib import Path
from xml.etree import ElementTree

from myproject import embedded
from tests.guards import ROOT, Changed, Guard, all_guards

SECONDS = 300
# What pytest-django makes of the name of the database.
DATABASE = "test_shop"


class Tree:
    """A copy of the working tree, in which one guard at a time is taken out."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder, self.template = folder, template
        names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    @contextmanager
    def without(self, guard: Guard) -> Iterator[None]:
        path = self.folder / guard.file
        whole = path.read_text()
        write(path, guard.taken_out(whole))
        try:
            yield
        finally:
            write(path, whole)

    def test(self, tests: Sequence[str], *options: str, fresh: bool = False) -> str:
        """Run the tests; return the first that failed, "" when all passed. Raises `Broken`."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"--junitxml={report}"]
        # The markers of pytest.ini leave slower tests out; a guard may name one.
        command += ["-m", "", *options, *(() if fresh else ["--reuse-db"]), *tests]
        environment = os.environ | ({} if fresh else {"TEST_TEMPLATE": str(self.template)})
        with (self.folder / "pytest.log").open("w") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
            try:
                process.wait(SECONDS * (1 if "-x" in options else 6))
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
        return failed(report, self.folder / "pytest.log")


class Broken(Exception):
    """The tests could not be run, or did not get as far as to fail."""


def failed(report: Path, log: Path) -> str:
    """Return the name of the first test that failed, "" when none did. Raises `Broken`."""
    if not report.exists():
        raise Broken(f"pytest ended without a report:\n{last_lines(log)}")
    cases = list(ElementTree.parse(report).iter("testcase"))
    for case in cases:
        if case.find("failure") is not None:
            return f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
    broken = [case.get("name") for case in cases if case.find("error") is not None]
    if broken or not cases or all(case.find("skipped") is not None for case in cases):
        raise Broken(f"No test ran to its end ({', '.join(map(str, broken)) or 'none passed'}):\n{last_lines(log)}")
    return ""


def last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def write(path: Path, text: str) -> None:
    path.write_text(text)
    # Python tells two versions of a file apart by size and second only.
    Path(cache_from_source(str(path))).unlink(missing_ok=True)


def git(*command: str) -> str:
    # In CI the tree belongs to somebody else than root.
    trusted = ["git", "-c", f"safe.directory={ROOT}"]
    return subprocess.run([*trusted, *command], cwd=ROOT, check=True, capture_output=True, text=True).stdout


@contextmanager
def trees(count: int) -> Iterator[list[Tree]]:
    with tempfile.TemporaryDirectory(prefix="guards-") as name:
        folder = Path(name)
        # PostgreSQL may run as somebody else.
        folder.chmod(0o755)
        template = folder / "template"
        make_template(template)
        made = []
        for number in range(count):
            (folder / f"tree{number}").mkdir()
            made.append(Tree(folder / f"tree{number}", template))
        yield made


def make_template(folder: Path) -> None:
    """Migrate a database once; each run of the tests begins with a copy of it."""
    with embedded.Postgres(folder) as postgres:
        postgres.create_database(DATABASE)
        environment = os.environ | {"DATABASE_URL": embedded.database_url(folder, DATABASE), "VAR_DIR": str(folder)}
        command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)


def chosen(since: str, words: Sequence[str]) -> list[Guard]:
    """Return the guards to take out: all, those that a change touches, or those with one of the words."""
    found = all_guards()
    if words:
        found = [guard for guard in found if any(word in f"{guard.area} {guard.practice}" for word in words)]
    if since:
        changed = set(git("diff", "--name-only", since).splitlines())
        found = [guard for guard in found if guard.files & changed]
    return found


def check_green(tree: Tree, tests: Sequence[str]) -> str:
    """Return what is wrong with the tests before any guard is taken out."""
    try:
        first = tree.test(tests) if tests else ""
    except Broken as error:
        return str(error)
    return f"{first} fails already:\n{last_lines(tree.folder / 'pytest.log')}" if first else ""


def check_red(tree: Tree, guard: Guard) -> str:
    """Take the guard out; return what is wrong with its entry, "" when a test has noticed."""
    try:
        with tree.without(guard):
            first = tree.test(guard.tests, "-x", fresh=guard.needs_migrations)
    except (Changed, Broken) as error:
        return str(error)
    return "" if first else "All its tests stay green."


def main() -> None:
    parser = argparse.ArgumentParser(prog="make guards", description=__doc__)
    parser.add_argument(
        "--since", default="", help="only the guards whose code or tests were changed since this commit"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("words", nargs="*", help="only the guards whose area or practice contains one of these")
    options = parser.parse_args()
    # Ended by a time limit, it still stops what it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    guards = chosen(options.since, options.words)
    if not guards:
        raise SystemExit("No guard is touched.")
    with trees(options.workers) as made:
        wrong = take_out(guards, made)
    print(f"{len(guards) - len(wrong)} of {len(guards)} guards are noticed when they are missing.")
    raise SystemExit("\n\n".join(wrong) or 0)


def take_out(guards: Sequence[Guard], made: Sequence[Tree]) -> list[str]:
    """Check each guard, side by side; return what is wrong."""
    free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for tree in made:
        free.put(tree)

    def report(guard: Guard) -> str:
        tree, begun = free.get(), time.monotonic()
        try:
            reason = check_red(tree, guard)
        finally:
            free.put(tree)
        print(f"{'WRONG' if reason else 'red'} after {time.monotonic() - begun:3.0f} s: {guard.practice}", flush=True)
        return f"{guard.practice}\n{reason}" if reason else ""

    tests = sorted({test for guard in guards for test in guard.tests})
    with ThreadPoolExecutor(len(made)) as pool:
        shares = [tests[number :: len(made)] for number in range(len(made))]
        wrong = list(filter(None, pool.map(check_green, made, shares)))
        print(f"{len(tests)} tests {'are not' if wrong else 'are'} green with every guard in place.", flush=True)
        return [*wrong, *filter(None, pool.map(report, guards))]


if __name__ == "__main__":
    main()
