"""The stand-in for the warehouse: its book, its pages of levels, and its faults."""

import csv
import json
from http.client import IncompleteRead
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from tests.sandbox.conftest import ROOT, SECONDS, Sandbox


@pytest.fixture
def sku() -> str:
    return f"ZZ-{uuid4()}"


def get(sandbox: Sandbox, query: str = "", **headers: str) -> Any:
    """Return the open answer; raises HTTPError."""
    headers = {"Authorization": "Bearer wh_test_x"} | {name.replace("_", "-"): text for name, text in headers.items()}
    return urlopen(Request(f"{sandbox.url}/warehouse/levels?{query}", headers=headers), timeout=SECONDS)


def move(sandbox: Sandbox, sku: str, units: Any) -> tuple[int, Any, str]:
    return sandbox.fetch("/warehouse/movements", {"movements": [{"sku": sku, "units": units}]})


def levels(sandbox: Sandbox, limit: int = 5000) -> dict[str, int]:
    """Read all pages; fail when a SKU comes twice."""
    found: dict[str, int] = {}
    page = page_of(sandbox, f"limit={limit}")
    while True:
        told = {level["sku"]: level["units"] for level in page["levels"]}
        assert not told.keys() & found.keys()
        found |= told
        if page["next"] is None:
            return found
        page = page_of(sandbox, f"limit={limit}&cursor={page['next']}")


def page_of(sandbox: Sandbox, query: str) -> Any:
    with get(sandbox, query) as answer:
        return json.load(answer)


def test_warehouse_opens_with_what_the_shop_s_catalogue_begins_with(own_sandbox: Sandbox) -> None:
    with (ROOT / "orders" / "catalogue.csv").open(newline="") as rows:
        catalogue = {row["sku"]: int(row["stock"]) for row in csv.DictReader(rows)}

    assert levels(own_sandbox) == catalogue


def test_movements_change_the_level(sandbox: Sandbox, sku: str) -> None:
    for units in (20, -3):
        move(sandbox, sku, units)

    assert levels(sandbox)[sku] == 17


def test_book_outlives_the_process(own_sandbox: Sandbox, sku: str) -> None:
    move(own_sandbox, sku, 5)
    before = levels(own_sandbox)

    own_sandbox.kill()
    own_sandbox.start()

    assert levels(own_sandbox) == before


def test_pages_tell_one_version_whatever_is_written_meanwhile(sandbox: Sandbox, sku: str) -> None:
    skus = [f"{sku[:20]}-{number}" for number in range(3)]
    for name in skus:
        move(sandbox, name, 10)
    page = page_of(sandbox, "limit=1")

    sandbox.fetch("/warehouse/movements", {"movements": [{"sku": "0-NEW", "units": 1}, {"sku": skus[2], "units": 1}]})
    rest = list(page["levels"])
    while page["next"]:
        page = page_of(sandbox, f"limit=1&cursor={page['next']}")
        rest += page["levels"]

    told = {level["sku"]: level["units"] for level in rest}
    assert len(told) == len(rest)
    assert ("0-NEW" in told, told[skus[2]]) == (False, 10)
    assert {"0-NEW": 1, skus[2]: 11}.items() <= levels(sandbox).items()


def test_etag_saves_the_answer_until_something_is_written(sandbox: Sandbox, sku: str) -> None:
    with get(sandbox) as answer:
        etag = answer.headers["ETag"]

    with pytest.raises(HTTPError) as caught:
        get(sandbox, If_None_Match=etag)
    move(sandbox, sku, 1)

    assert caught.value.code == 304
    with get(sandbox, If_None_Match=etag) as answer:
        assert answer.headers["ETag"] != etag


def test_etag_tells_a_book_that_was_started_anew(sandbox: Sandbox, own_sandbox: Sandbox) -> None:
    with get(sandbox) as one, get(own_sandbox) as other:
        assert one.headers["ETag"].partition("-")[0] != other.headers["ETag"].partition("-")[0]


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer live_1", "Basic wh_test_x"])
def test_levels_are_told_with_a_test_token_only(token: str, sandbox: Sandbox) -> None:
    with pytest.raises(HTTPError) as caught:
        get(sandbox, Authorization=token)

    assert caught.value.code == 401


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=5001", "cursor=x", "cursor=1.", "cursor=.A", "cursor=999999999.A"]
)
def test_levels_refuse_what_makes_no_sense(query: str, sandbox: Sandbox) -> None:
    with pytest.raises(HTTPError) as caught:
        get(sandbox, query)

    assert caught.value.code == 400


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        {"movements": [1]},
        {"movements": [{"sku": "A"}]},
        {"movements": [{"sku": "A", "units": 0}]},
        {"movements": [{"sku": "A", "units": True}]},
        {"movements": [{"sku": "A", "units": 1.5}]},
        {"movements": [{"sku": 5, "units": 1}]},
        {"movements": [{"sku": "", "units": 1}]},
        {"movements": [{"sku": "A" * 41, "units": 1}]},
        {"movements": [{"sku": "A", "units": 1}, {"sku": "NOTHING-OF-THIS", "units": -1}]},
        b"sku=A&units=-1&reason=arrived",
        b"sku=A&units=1&reason=eaten",
        b"sku=NOTHING-OF-THIS&units=1&reason=broken",
        b"",
    ],
)
def test_movements_that_cannot_be_write_nothing(data: object, sandbox: Sandbox) -> None:
    before = levels(sandbox)

    status, _, _ = sandbox.fetch("/warehouse/movements", data)

    assert (status, levels(sandbox)) == (400, before)


def test_page_takes_what_arrived_and_what_broke(sandbox: Sandbox) -> None:
    before = levels(sandbox)["LIT-001"]

    for form in (b"sku=LIT-001&units=20&reason=arrived", b"sku=LIT-001&units=3&reason=broken"):
        status, _, text = sandbox.fetch("/warehouse/movements", form)

    assert (status, levels(sandbox)["LIT-001"]) == (200, before + 17)
    assert "broken" in text


@pytest.mark.parametrize(("fault", "status"), [("warehouse_error", 500), ("warehouse_busy", 429)])
def test_fault_answers_once(fault: str, status: int, sandbox: Sandbox) -> None:
    sandbox.switch_on(fault, count=1)

    with pytest.raises(HTTPError) as caught:
        get(sandbox)

    assert caught.value.code == status
    assert caught.value.headers["Retry-After"] == ("2" if status == 429 else None)
    assert levels(sandbox)


def test_fault_ends_the_answer_in_the_middle(sandbox: Sandbox) -> None:
    sandbox.switch_on("warehouse_cut", count=1)

    with pytest.raises(IncompleteRead), get(sandbox) as answer:
        answer.read()

    assert levels(sandbox)


def test_fault_answers_with_half_of_the_json(sandbox: Sandbox) -> None:
    sandbox.switch_on("warehouse_garbled", count=1)

    with get(sandbox) as answer, pytest.raises(json.JSONDecodeError):
        json.load(answer)

    assert levels(sandbox)


def test_fault_tells_a_level_below_zero(sandbox: Sandbox) -> None:
    sandbox.switch_on("warehouse_negative", count=1)

    found = [min(levels(sandbox).values()) for _ in range(2)]

    assert (found[0], found[1] >= 0) == (-1, True)


def test_fault_delays_the_answer(sandbox: Sandbox) -> None:
    sandbox.switch_on("warehouse_slow", count=1, seconds=0.2)

    assert levels(sandbox)
    assert sandbox.ask("/controls.json")["faults"]["warehouse_slow"]["struck"] == 1
