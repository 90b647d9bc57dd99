import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from reports import heartbeat


@pytest.fixture(autouse=True)
def no_heartbeat_within_a_transaction(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give no sign of life where that cannot see the report: it has a connection of its own."""
    marker = request.node.get_closest_marker("django_db")
    if marker is not None and not marker.kwargs.get("transaction"):
        monkeypatch.setattr(heartbeat, "INTERVAL", 600.0)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Have the system refuse to write a longer file, as it does when the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
