"""The client of the warehouse: what it makes of good answers, bad answers and none."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from durable.errors import PermanentError, TemporaryError
from orders import warehouse
from tests.sandbox.conftest import Sandbox


@pytest.fixture
def sandbox(tmp_path: Path, settings: Settings) -> Iterator[Sandbox]:
    with Sandbox(tmp_path) as own:
        settings.WAREHOUSE_URL = f"{own.url}/warehouse"
        yield own


class Counterpart(HTTPServer):
    """Answers the requests with these bodies, one after the other."""

    bodies: list[str]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Counterpart)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.bodies.pop(0).encode())

    def log_message(self, *args: Any) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def counterpart(settings: Settings) -> Iterator[Counterpart]:
    with Counterpart(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        settings.WAREHOUSE_URL = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()


def page(*levels: tuple[object, object], version: object = 1, following: object = None) -> str:
    told = [{"sku": sku, "units": units} for sku, units in levels]
    return json.dumps({"version": version, "levels": told, "next": following})


def read(etag: str = "") -> dict[str, int]:
    return {sku: units for page in warehouse.pages(etag) for sku, units in page.levels.items()}


def test_pages_bring_each_level_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read()
    monkeypatch.setattr(warehouse, "PAGE_SIZE", 7)

    found = list(warehouse.pages())

    assert ([len(page.levels) for page in found], read()) == ([7] * 6 + [6], whole)
    assert (len({page.etag for page in found}), whole["LIT-001"]) == (1, 34)


def test_pages_are_none_when_nothing_has_changed(sandbox: Sandbox) -> None:
    [page] = warehouse.pages()

    assert read(page.etag) == {}


@pytest.mark.parametrize(
    ("fault", "message", "pause"),
    [
        ("warehouse_error", "500", None),
        ("warehouse_busy", "429", 2),
        ("warehouse_cut", "ChunkedEncodingError", None),
        ("warehouse_garbled", "not JSON", None),
    ],
)
def test_pages_may_be_asked_for_again_when_the_warehouse_has_trouble(
    fault: str, message: str, pause: float | None, sandbox: Sandbox
) -> None:
    sandbox.switch_on(fault, count=1)

    with pytest.raises(TemporaryError, match=message) as caught:
        read()

    assert (caught.value.retry_after, len(read())) == (pause, 48)


def test_pages_may_be_asked_for_again_when_the_warehouse_is_too_slow(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warehouse, "TIMEOUT_SECONDS", 0.2)
    sandbox.switch_on("warehouse_slow", count=1, seconds=30)

    with pytest.raises(TemporaryError, match="ReadTimeout"):
        read()


def test_pages_are_refused_for_good_when_the_token_is_wrong(sandbox: Sandbox, settings: Settings) -> None:
    settings.WAREHOUSE_TOKEN = "stolen"

    with pytest.raises(PermanentError, match="401"):
        read()


@pytest.mark.parametrize("units", [-1, 1.5, "7", None, True, 10**12])
def test_level_that_cannot_be_is_set_aside(units: object, counterpart: Counterpart) -> None:
    counterpart.bodies = [page(("A", units), ("B", 2))]

    [found] = warehouse.pages()

    assert (found.levels, list(found.unusable)) == ({"B": 2}, ["A"])


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([("", 1)], "Row 1"),
        ([(None, 1)], "Row 1"),
        ([(7, 1)], "Row 1"),
        ([("A" * 41, 1)], "A" * 40),
        ([("A\0", 1)], "A·"),
        ([("A\ud800", 1)], "A·"),
        ([("A", 1), ("A", 1)], "A"),
    ],
)
def test_row_that_is_no_level_is_refused_by_name_and_the_others_are_taken(
    rows: list[tuple[object, object]], named: str, counterpart: Counterpart
) -> None:
    counterpart.bodies = [page(*rows, ("B", 2), following="x"), page(("C", 3))]

    first, second = warehouse.pages()

    assert (first.levels, list(first.unusable), second.levels) == ({"B": 2}, [named], {"C": 3})


@pytest.mark.parametrize("row", ["5", "null", '["A", 1]', "{}", '{"sku": "A"}'])
def test_row_of_another_shape_is_refused_by_name(row: str, counterpart: Counterpart) -> None:
    counterpart.bodies = [f'{{"version": 1, "levels": [{row}, {{"sku": "B", "units": 2}}], "next": null}}']

    [found] = warehouse.pages()

    assert (found.levels, list(found.unusable)) == ({"B": 2}, ["A" if "sku" in row else "Row 1"])


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "7",
        "null",
        "{}",
        '{"version": 1, "levels": 5, "next": null}',
        '{"version": 1, "levels": {"sku": "A"}, "next": null}',
        page(("A", 1), version="1"),
        page(("A", 1), version=2**63),
        page(("A", 1), following=7),
        page(("A", 1), following="\ud800"),
    ],
)
def test_answer_is_refused_when_it_is_not_what_was_agreed(body: str, counterpart: Counterpart) -> None:
    counterpart.bodies = [body]

    with pytest.raises(PermanentError, match="not what was agreed"):
        read()


@pytest.mark.parametrize(
    "second", [page(("A", 1)), page(("B", 1), following="again"), page(following="again")], ids=["back", "same", "none"]
)
def test_pages_do_not_go_in_circles(second: str, counterpart: Counterpart) -> None:
    counterpart.bodies = [page(("B", 1), following="x"), second]

    with pytest.raises(PermanentError, match="order of their SKUs"):
        read()


def test_pages_are_of_one_version(counterpart: Counterpart) -> None:
    counterpart.bodies = [page(("A", 1), following="x"), page(("B", 1), version=2)]

    with pytest.raises(TemporaryError, match="from version 1 to 2"):
        read()
