import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import requests

from .conftest import SECONDS, Sandbox, wait_for

TOKEN = {"Authorization": "Bearer crm_test_sandbox"}


@pytest.fixture
def key() -> str:
    return str(uuid4())


def version(minute: int) -> str:
    return f"2026-11-21T12:{minute:02}:00.000001+01:00"


def put(sandbox: Sandbox, key: str, minute: int = 0, **fields: Any) -> requests.Response:
    contact = {"email": "alice@example.com", "name": "Alice", "changed_at": version(minute)} | fields
    headers = {name: contact.pop(name) for name in ("Authorization", "Sandbox-Fault") if name in contact}
    url = f"{sandbox.url}/crm/contacts/{key}"
    return requests.put(url, json=contact, headers=TOKEN | headers, timeout=SECONDS)


def delete(sandbox: Sandbox, key: str, minute: int = 0) -> int:
    url = f"{sandbox.url}/crm/contacts/{key}"
    return requests.delete(url, params={"changed_at": version(minute)}, headers=TOKEN, timeout=SECONDS).status_code


def contact_of(sandbox: Sandbox, key: str) -> dict[str, Any]:
    """Return the contact; empty where there is none."""
    found: list[dict[str, Any]] = sandbox.ask(f"/crm.json?external_id={key}")["contacts"]
    return found[0] if found else {}


def test_contact_is_made_and_then_changed(sandbox: Sandbox, key: str) -> None:
    answers = [put(sandbox, key).status_code, put(sandbox, key, 1, name="Alice B.").status_code]

    contact = contact_of(sandbox, key)
    assert answers == [201, 200]
    assert (contact["name"], contact["email"], contact["written"]) == ("Alice B.", "alice@example.com", 2)


def test_same_version_is_written_once(sandbox: Sandbox, key: str) -> None:
    answers = [put(sandbox, key).status_code for _ in range(3)]

    contact = contact_of(sandbox, key)
    assert answers == [201, 200, 200]
    assert (contact["written"], contact["asked"]) == (1, 3)


def test_older_version_that_arrives_late_is_refused(sandbox: Sandbox, key: str) -> None:
    put(sandbox, key, 2, name="New")

    late = put(sandbox, key, 1, name="Old")

    assert (late.status_code, late.json()["error"]["field"]) == (409, "changed_at")
    assert contact_of(sandbox, key)["name"] == "New"


@pytest.mark.parametrize("known", [True, False])
def test_deleted_contact_is_not_brought_back_by_an_older_version(known: bool, sandbox: Sandbox, key: str) -> None:
    if known:
        put(sandbox, key, 1)

    answers = [delete(sandbox, key, 3), delete(sandbox, key, 3), put(sandbox, key, 2).status_code]

    contact = contact_of(sandbox, key)
    assert answers == [200 if known else 404, 404, 409]
    assert (contact["deleted"], contact["email"], contact["name"]) == (1, "", "")


def test_deletion_that_arrives_late_is_refused(sandbox: Sandbox, key: str) -> None:
    put(sandbox, key, 2)

    assert delete(sandbox, key, 1) == 409
    assert contact_of(sandbox, key)["deleted"] == 0


@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer live_secret", "Basic crm_test_x"])
def test_token_is_needed(header: str, sandbox: Sandbox, key: str) -> None:
    answer = put(sandbox, key, Authorization=header)

    assert answer.status_code == 401
    assert "live_secret" not in answer.text
    assert contact_of(sandbox, key) == {}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": None}, "email"),
        ({"email": "a@" + "x" * 300}, "email"),
        ({"name": 7}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"changed_at": "soon"}, "changed_at"),
        ({"changed_at": "2026-11-21T12:00:00"}, "changed_at"),
        ({"changed_at": 1}, "changed_at"),
        ({"phone": "1"}, ""),
    ],
)
def test_bad_contact_is_refused_without_repeating_it(
    fields: dict[str, Any], field: str, sandbox: Sandbox, key: str
) -> None:
    answer = put(sandbox, key, **fields)

    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)
    assert "alice" not in answer.text
    assert contact_of(sandbox, key) == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 9_000, b'"' + b"x" * 20_000 + b'"'])
def test_body_that_is_no_contact_is_refused(body: bytes, sandbox: Sandbox, key: str) -> None:
    url = f"{sandbox.url}/crm/contacts/{key}"

    assert requests.put(url, data=body, headers=TOKEN, timeout=SECONDS).status_code == 422


def test_deletion_needs_a_version(sandbox: Sandbox, key: str) -> None:
    answer = requests.delete(f"{sandbox.url}/crm/contacts/{key}", headers=TOKEN, timeout=SECONDS)

    assert answer.status_code == 422


@pytest.mark.parametrize(("fault", "status"), [("crm_error", 500), ("crm_busy", 429), ("crm_refuse", 422)])
def test_fault_strikes_before_writing(fault: str, status: int, sandbox: Sandbox, key: str) -> None:
    sandbox.switch_on(fault, count=1)

    assert put(sandbox, key).status_code == status
    assert contact_of(sandbox, key) == {}
    assert put(sandbox, key).status_code == 201


def test_busy_crm_says_how_long(sandbox: Sandbox, key: str) -> None:
    sandbox.switch_on("crm_busy", count=1, seconds=77)

    assert put(sandbox, key).headers["Retry-After"] == "77"


def test_contact_is_written_once_when_the_answer_was_lost(sandbox: Sandbox, key: str) -> None:
    with pytest.raises(requests.ConnectionError):
        put(sandbox, key, 0, **{"Sandbox-Fault": "crm_drop_answer"})

    assert put(sandbox, key).status_code == 200
    assert contact_of(sandbox, key)["written"] == 1


def test_slow_crm_writes_all_the_same(sandbox: Sandbox, key: str) -> None:
    sandbox.switch_on("crm_slow", count=1, seconds=0.4)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(put, sandbox, key)
        wait_for(lambda: sandbox.ask("/controls.json")["faults"]["crm_slow"]["struck"])
        assert contact_of(sandbox, key) == {}
        assert answer.result(SECONDS).status_code == 201


def test_contact_outlives_the_process(own_sandbox: Sandbox, key: str) -> None:
    put(own_sandbox, key)

    own_sandbox.kill()
    own_sandbox.start()

    assert contact_of(own_sandbox, key)["written"] == 1


def test_page_lists_contacts_and_how_often_they_were_written(sandbox: Sandbox, key: str) -> None:
    put(sandbox, key, name="<b>Alice</b>")
    put(sandbox, key, 1, name="<b>Alice</b>")

    page = sandbox.fetch("/crm")[2]

    assert key in page
    assert "&lt;b&gt;Alice&lt;/b&gt;" in page
    assert "2×" in page
    assert 'href="/crm"' in sandbox.fetch("/")[2]


def test_page_forgets_deleted_people(sandbox: Sandbox, key: str) -> None:
    put(sandbox, key, name=f"Name {key}")
    delete(sandbox, key, 1)

    page = sandbox.fetch("/crm")[2]

    assert ("forgotten" in page, f"Name {key}" in page) == (True, False)
    assert json.dumps(contact_of(sandbox, key)).count(key) == 1
