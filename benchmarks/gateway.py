"""A payment gateway inside the worker's own process, the same for both sides."""

import os
import time

SECONDS = float(os.environ.get("GATEWAY_SECONDS", "0"))


def charge(payment: object) -> str:
    if SECONDS:
        time.sleep(SECONDS)
    return "pi_benchmark"
