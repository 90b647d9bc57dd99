"""Start a module in two processes at the same moment: what both sides of a comparison without Celery do."""

import subprocess
import sys
import time
from collections.abc import Callable

PROCESSES = 2


def seconds_of(module: str, *arguments: object) -> float:
    """Return how long the two processes took, from the word *go* until the second had finished."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(PROCESSES)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    start = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit(f"{module} failed")
    return time.perf_counter() - start


def on_go(work: Callable[[], object]) -> None:
    """In such a process: say *ready*, wait for *go*, work."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    work()
