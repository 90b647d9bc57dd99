"""Ports for the servers that tests start.

They lie below those that the system gives to clients (from 32768 on Linux, from 49152 elsewhere): a client could take
such a port before its server does, and one that asks there too early can even be connected with itself.
"""

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack

HOST = "127.0.0.1"
PORTS = range(10_000, 32_000)
# Closed when this process ends.
_claims: list[ExitStack] = []


def free_port() -> int:
    """Return a port of this process's own."""
    return next(port for port in _shuffled(PORTS) if claim(port))


def free_offset(*ports: int) -> int:
    """Return what makes each of these ports, when it is added, one of this process's own."""
    offsets = range(PORTS.start - min(ports), PORTS.stop - max(ports))
    return next(offset for offset in _shuffled(offsets) if claim(*(port + offset for port in ports)))


def claim(*ports: int) -> bool:
    """Keep other runs of the tests from these ports; False when one of them is taken."""
    with ExitStack() as stack:
        try:
            for port in ports:
                # By UDP, which is not used here: for the server itself the port stays free.
                stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)).bind((HOST, port))
        except OSError:
            return False
        _claims.append(stack.pop_all())
    return all(map(is_free, ports))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _shuffled(numbers: range) -> Iterator[int]:
    return iter(random.sample(numbers, len(numbers)))
