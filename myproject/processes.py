"""The processes of `make run`: prints their output, restarts those that die, and stops all of them at the end.

Run as a program, this file is their guard. It reads which processes there are until the shop's own process is gone,
even by `kill -9`, and ends those that are left. The list lies in a file as well, so that the next start ends what a
guard that was killed too has left.
"""

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Thread

import psutil

# A warm shutdown lets a worker finish the order it is at.
STOP_SECONDS = 30
# How long the guard waits for them.
GUARD_SECONDS = 10
# By then all are up, even on a slow machine.
SETTLED_SECONDS = 20
COLOURS = (36, 33, 32, 35, 34)
# Tells a guard that takes the place of another that the processes are those of a shop that runs.
OURS = "--ours"
# A pid, and since when it is this process: pids are used again.
Known = tuple[int, float]
# Tells whether a process has to start again to read this file, which has changed.
Wants = Callable[[Path], bool]


def say(name: str, text: str, colour: int = 0) -> None:
    """Print a line to the terminal, which may be closed already."""
    prefix = f"{datetime.now().astimezone():%H:%M:%S} {name.ljust(8)}| "
    with suppress(OSError):
        sys.stdout.write(f"\033[{colour}m{prefix}\033[0m{text}\n" if sys.stdout.isatty() else f"{prefix}{text}\n")
        sys.stdout.flush()


class Process:
    """One line of the Procfile, in a session of its own: a Ctrl-C in the terminal is not for it."""

    def __init__(
        self, name: str, command: str, environment: Mapping[str, str], folder: Path, colour: int, wants: Wants
    ) -> None:
        self.name, self.colour, self.wants = name, colour, wants
        self.command, self.environment, self.folder = shlex.split(command), environment, folder
        self.popen: subprocess.Popen[bytes] | None = None
        # Told to leave since its code has changed.
        self.is_leaving = False

    def start(self) -> None:
        self.is_leaving = False
        self.popen = subprocess.Popen(
            self.command,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.reader = Thread(target=self._print, args=(self.popen,), daemon=True)
        self.reader.start()

    def is_running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def terminate(self) -> None:
        """Tell only the process itself: a worker then waits for its children, which go on with their tasks."""
        if self.popen is not None and self.is_running():
            self.popen.terminate()

    def kill(self) -> None:
        """Kill it with what it has started, also when it is dead itself."""
        if self.popen is not None:
            kill_group(self.popen.pid)
            self.popen.wait()
            # It prints the last words.
            self.reader.join(1)

    def _print(self, popen: subprocess.Popen[bytes]) -> None:
        for line in popen.stdout or ():
            say(self.name, line.decode(errors="replace").rstrip("\n"), self.colour)


class Guard:
    """The parent's side of the guard, a process that knows all others and stops them if the parent dies."""

    def __init__(self, notes: Path) -> None:
        self.pids: list[int] = []
        # -P: our folder has an http.py.
        self.command = [sys.executable, "-P", __file__, str(notes)]

    def start(self, *options: str) -> None:
        """Return when processes of an earlier run are gone."""
        self.popen = subprocess.Popen(
            [*self.command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
        )
        self.popen.stdout.readline()  # type: ignore[union-attr]

    def update(self, pids: list[int]) -> None:
        """Send the list of processes to stop if this process dies; restart the guard if it died."""
        if self.popen.poll() is not None:
            self.start(OURS)
        elif pids == self.pids:
            return
        with suppress(BrokenPipeError):
            self.popen.stdin.write(json.dumps([(pid, created_at(pid)) for pid in pids]) + "\n")  # type: ignore[union-attr]
            self.popen.stdin.flush()  # type: ignore[union-attr]
        self.pids = pids

    def stop(self) -> None:
        self.update([])
        self.popen.communicate()


# What a process reads once: code, and templates of mails.
READ_ONCE = ("*.py", "email/*")


class Watch:
    """Tells what code has changed in these folders, when it is asked, at most once a second."""

    def __init__(self, folders: Callable[[], Iterable[Path]]) -> None:
        self.folders = folders
        self.known = self.first = self.look()
        self.looked_at = time.monotonic()

    def look(self) -> dict[Path, int]:
        found = {}
        for path in (path for folder in self.folders() for kind in READ_ONCE for path in folder.rglob(kind)):
            # An editor may be writing it anew.
            with suppress(FileNotFoundError):
                found[path] = path.stat().st_mtime_ns
        return found

    def changed(self) -> list[Path]:
        """Return the files that are new or not as they were, also those that are gone."""
        if time.monotonic() - self.looked_at < 1:
            return []
        before, self.known = self.known, self.look()
        self.looked_at = time.monotonic()
        return sorted({path for path, _ in before.items() ^ self.known.items()})


def fault(paths: Iterable[Path]) -> str:
    """Return what keeps one of these files from being Python, empty if nothing does."""
    for path in paths:
        if path.suffix != ".py":
            continue
        try:
            compile(path.read_bytes(), path.name, "exec")
        except FileNotFoundError:
            continue
        except (SyntaxError, ValueError) as error:
            return str(error)
    return ""


class Supervisor:
    """Keeps the processes running until Ctrl-C; `others` are the pids of the servers, which `revive` keeps running."""

    def __init__(self, guard: Guard, watch: Watch, revive: Callable[[], None], others: Callable[[], list[int]]) -> None:
        self.guard, self.watch, self.revive, self.others = guard, watch, revive, others
        self.processes: list[Process] = []
        # Code that has changed and that no process has read, since some of it is no Python.
        self.unread: set[Path] = set()
        self.parent = os.getppid()

    def add(self, name: str, command: str, environment: Mapping[str, str], folder: Path, wants: Wants) -> None:
        colour = COLOURS[len(self.processes) % len(COLOURS)]
        self.processes.append(Process(name, command, environment, folder, colour, wants))

    def run(self, *early: str, then: Callable[[], None] = lambda: None) -> None:
        """Start those that are named, call `then`, start the others, and keep all running."""
        try:
            self.start(process for process in self.processes if process.name in early)
            then()
            self.start(process for process in self.processes if process.name not in early)
            Thread(target=tell_memory, daemon=True).start()
            while not self.is_left():
                self.revive()
                self.reload()
                self.start_dead()
                self.guard.update(self.pids())
                time.sleep(0.1)
        finally:
            self.stop()

    def start(self, processes: Iterable[Process]) -> None:
        for process in processes:
            process.start()
        self.guard.update(self.pids())

    def is_left(self) -> bool:
        """Tell whether `make`, through which alone the terminal can stop us, has been killed."""
        return "MAKELEVEL" in os.environ and os.getppid() != self.parent

    def pids(self) -> list[int]:
        return [*self.others(), *(each.popen.pid for each in self.processes if each.popen is not None)]

    def reload(self) -> None:
        """Where code has changed, let those that do not read it by themselves end their tasks, and start again."""
        if not (changed := self.watch.changed()):
            return
        self.unread.update(changed)
        if wrong := fault(self.unread):
            say("system", f"{wrong}: the workers go on with the code of before")
            return
        paths = sorted(self.unread)
        self.unread.clear()
        for process in self.processes:
            wanted = [path.name for path in paths if process.wants(path)]
            if wanted and process.is_running() and not process.is_leaving:
                say("system", f"{wanted[0]} has changed; {process.name} ends what it does and starts again")
                process.is_leaving = True
                process.terminate()

    def start_dead(self) -> None:
        for process in self.processes:
            if not process.is_running():
                self.start_again(process)

    def start_again(self, process: Process) -> None:
        process.kill()
        if not process.is_leaving:
            say("system", f"{process.name} died; starting it again")
            # What dies at once must not keep the machine busy.
            time.sleep(1)
        process.start()

    def stop(self) -> None:
        """Let each process finish what it does; a second Ctrl-C does not wait for that."""
        with suppress(KeyboardInterrupt):
            for process in self.processes:
                process.terminate()
            wait(lambda: not any(process.is_running() for process in self.processes), STOP_SECONDS)
        for process in self.processes:
            process.kill()


def tell_memory() -> None:
    """Say what this process and all that it has started take; what several share counts once."""
    time.sleep(SETTLED_SECONDS)
    this = psutil.Process()
    sizes = [size(process) for process in (this, *this.children(recursive=True))]
    say("system", f"the shop takes {sum(sizes) / 2**20:.0f} MB in {len(sizes)} processes")


def size(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        try:
            found = process.memory_full_info()
        except psutil.AccessDenied:
            return int(process.memory_info().rss)
        # Only Linux knows who shares a page; elsewhere shared pages do not count.
        return int(getattr(found, "pss", found.uss))
    return 0


def wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def created_at(pid: int) -> float:
    """Return since when a pid is this process, and 0 when there is none."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).create_time()
    return 0


def kill_group(pid: int) -> None:
    # macOS raises this for a group without live processes.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


# --- The guard itself ---


def guard(notes: Path, *options: str) -> None:
    # Two guards never work at the same time: the kernel drops the lock with the process that holds it.
    with notes.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = noted(notes)
        if OURS not in options:
            end(known)
        with suppress(OSError):
            sys.stdout.write("ready\n")
            sys.stdout.flush()
        for line in sys.stdin:
            known = json.loads(line)
            # On a full disk it still knows by itself.
            with suppress(OSError):
                notes.write_text(line)
        end(known)
        notes.unlink(missing_ok=True)


def noted(notes: Path) -> list[Known]:
    try:
        return [(pid, since) for pid, since in json.loads(notes.read_text())]
    except (OSError, ValueError):
        # There are none, or the machine lost its power while they were written.
        return []


def end(known: list[Known]) -> None:
    """Terminate the processes, wait a little, and kill what is left, with what they have started."""
    mine = [pid for pid, since in known if created_at(pid) == since]
    for pid in reversed(mine):
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            # SIGINT is PostgreSQL's "fast" shutdown; to the others it is a Ctrl-C.
            os.kill(pid, signal.SIGINT if psutil.Process(pid).name() == "postgres" else signal.SIGTERM)
    wait(lambda: not any(map(is_alive, mine)), GUARD_SECONDS)
    for pid in mine:
        kill_group(pid)


def is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


if __name__ == "__main__":
    guard(Path(sys.argv[1]), *sys.argv[2:])
