"""Tell whether the worker or beat of this container or unit lives: `python -S deploy/alive.py worker`.

It exits with 0 when its file in HEARTBEAT_DIR is fresh, and with 1 when that is old or missing. It asks no broker and
imports nothing of the shop, so that it costs nearly nothing and never fails for another's fault.
"""

import argparse
import os
import sys
import time

# Seconds. The file is written every 5. After a broker was away a worker tries again within half a minute.
MAX_AGE = 60


def complaint(path: str, max_age: float) -> str:
    """Return what is wrong; empty when the process lives."""
    try:
        with open(path) as file:
            age = time.monotonic() - float(file.read())
    except (OSError, ValueError) as error:
        return f"no sign of life: {error}"
    # One that comes from the future was written before this machine was started.
    return "" if 0 <= age <= max_age else f"the last sign of life is {age:.0f} s old, more than {max_age:g} s: {path}"


def main() -> str:
    parser = argparse.ArgumentParser(description="Exit with 0 if the process shows that it lives, else with 1.")
    parser.add_argument("process", choices=["worker", "beat"])
    parser.add_argument("--max-age", type=float, default=MAX_AGE, help="seconds (default: %(default)s)")
    options = parser.parse_args()
    folder = os.environ.get("HEARTBEAT_DIR")
    if not folder:
        return "HEARTBEAT_DIR is not set, so nothing shows that it lives"
    return complaint(os.path.join(folder, options.process), options.max_age)


if __name__ == "__main__":
    sys.exit(main() or 0)
