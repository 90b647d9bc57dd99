"""Run experiments in a world of their own: `python -m lab wiped-redis`, or `python -m lab all`."""

import argparse
import signal
import sys
from contextlib import suppress
from pathlib import Path

from lab import environment
from myproject import embedded
from myproject.variables import BASE_DIR, env

import django  # isort: skip

HOME = Path(env.str("VAR_DIR", default=str(BASE_DIR / "var"))) / "lab"


def main() -> int:
    parser = argparse.ArgumentParser(prog="lab", description="The tutorials' way beside ours, under the same fault.")
    parser.add_argument("slugs", nargs="*", help="names of experiments, or: all; without one they are listed")
    parser.add_argument("--progress", type=Path, help="a file that always has the state of the run, for the page")
    parser.add_argument("--watch", type=int, default=0, help="stop when this process is gone")
    parser.add_argument("--record", action="store_true", help="write the numbers for the documentation")
    options = parser.parse_args()
    # However it ends, it stops what it has started.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    environment.apply(HOME)
    django.setup()
    from lab import runner

    if not options.slugs:
        return runner.list_all()
    try:
        with suppress(KeyboardInterrupt):
            return runner.run(options.slugs, HOME, options.progress, options.watch, options.record)
    except embedded.Unavailable as error:
        sys.stderr.write(f"lab: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
