from typing import Any
from uuid import uuid4

import pytest

from .conftest import Sandbox


def post(sandbox: Sandbox, message: object) -> int:
    return sandbox.fetch("/chat", message)[0]


def messages(sandbox: Sandbox) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sandbox.ask("/chat.json")
    return found


def test_chat_shows_the_newest_message_first(sandbox: Sandbox) -> None:
    titles = [f"Alert {uuid4()} <b>" for _ in range(2)]
    for title in titles:
        post(sandbox, {"title": title, "message": "one\ntwo", "type": "failure"})

    page = sandbox.fetch("/chat")[2]

    assert [row["title"] for row in messages(sandbox)[:2]] == titles[::-1]
    assert page.index(titles[1][:-4]) < page.index(titles[0][:-4])
    assert "<b>" not in page


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b'{"title": "no message"}', b"\xff\xfe"])
def test_chat_refuses_what_is_no_message(body: bytes, sandbox: Sandbox) -> None:
    before = messages(sandbox)

    assert sandbox.fetch("/chat", body)[0] == 400
    assert messages(sandbox) == before


def test_chat_takes_what_alertmanager_posts(sandbox: Sandbox) -> None:
    name = f"Alert {uuid4()}"
    alert = {"labels": {"alertname": name}, "annotations": {"summary": "Nothing comes through the queue mail."}}

    code = post(sandbox, {"status": "firing", "receiver": "chat", "alerts": [alert, alert | {"annotations": {}}, "?"]})

    told = messages(sandbox)[0]
    assert code == 200
    assert told["title"] == f"{name}: firing"
    assert told["message"].splitlines()[0] == "Nothing comes through the queue mail."


def test_chat_loses_a_message_when_the_fault_is_on(sandbox: Sandbox) -> None:
    sandbox.switch_on("chat_error", count=1)
    title = str(uuid4())

    codes = [post(sandbox, {"title": title, "message": "x"}) for _ in range(2)]

    assert codes == [500, 200]
    assert [row["title"] for row in messages(sandbox)].count(title) == 1


def test_chat_outlives_the_process(own_sandbox: Sandbox) -> None:
    post(own_sandbox, {"title": "Kept", "message": "x"})
    own_sandbox.kill()
    own_sandbox.start()

    assert [row["title"] for row in messages(own_sandbox)] == ["Kept"]
