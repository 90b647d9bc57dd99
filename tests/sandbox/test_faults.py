import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import stripe

from .conftest import Sandbox


def test_refused_connection_charges_nothing(sandbox: Sandbox, order: str) -> None:
    sandbox.switch_on("refuse", count=1)

    with pytest.raises(stripe.APIConnectionError):
        sandbox.charge(order=order)

    assert sandbox.charges(order) == []
    assert sandbox.charge(order=order).status == "succeeded"


def test_error_before_charges_nothing(sandbox: Sandbox, order: str) -> None:
    sandbox.switch_on("error_before", count=1)

    with pytest.raises(stripe.APIError) as caught:
        sandbox.charge(order=order)

    assert caught.value.http_status == 500
    assert dict(caught.value.headers or {})["Sandbox-Fault"] == "error_before"
    assert sandbox.charges(order) == []
    assert sandbox.charge(order=order).status == "succeeded"


@pytest.mark.parametrize(
    ("fault", "error"), [("drop_answer", stripe.APIConnectionError), ("error_after", stripe.APIError)]
)
def test_repeat_returns_the_one_charge_when_its_answer_was_lost(
    fault: str, error: type[Exception], sandbox: Sandbox, order: str
) -> None:
    sandbox.switch_on(fault, count=1)

    with pytest.raises(error):
        sandbox.charge(order=order)
    (charge,) = sandbox.charges(order)
    intent = sandbox.charge(order=order)

    assert (charge["id"], charge["asked"]) == (intent.id, 1)
    assert intent.last_response.headers["Idempotent-Replayed"] == "true"
    assert [charge["asked"] for charge in sandbox.charges(order)] == [2]


@pytest.mark.parametrize("fault", ["drop_answer", "error_after"])
def test_decline_is_remembered_when_its_answer_was_lost(fault: str, sandbox: Sandbox, order: str) -> None:
    sandbox.switch_on(fault, count=1)

    with pytest.raises((stripe.APIConnectionError, stripe.APIError)):
        sandbox.charge("pm_card_visa_chargeDeclined", order)
    with pytest.raises(stripe.CardError):
        sandbox.charge("pm_card_visa_chargeDeclined", order)

    assert [charge["status"] for charge in sandbox.charges(order)] == ["declined"]


def test_latency_delays_the_answer(sandbox: Sandbox, order: str) -> None:
    sandbox.switch_on("latency", count=1, seconds=0.4)

    started = time.monotonic()
    sandbox.charge(order=order)

    assert time.monotonic() - started >= 0.4


def test_charge_outlives_the_process_when_it_dies_after_charging(own_sandbox: Sandbox, order: str) -> None:
    own_sandbox.switch_on("latency", rate=0.25, seconds=0)
    own_sandbox.switch_on("die_after", count=1)

    with pytest.raises(stripe.APIConnectionError):
        own_sandbox.charge(order=order)
    assert own_sandbox.wait_for_death() == -9
    own_sandbox.start()
    (charge,) = own_sandbox.charges(order)
    intent = own_sandbox.charge(order=order)

    assert intent.id == charge["id"]
    assert [charge["asked"] for charge in own_sandbox.charges(order)] == [2]
    faults = own_sandbox.ask("/controls.json")["faults"]
    assert faults["die_after"] == {"count": 0, "struck": 1}
    assert faults["latency"]["rate"] == 0.25


def test_die_after_spares_a_replay(own_sandbox: Sandbox, order: str) -> None:
    intent = own_sandbox.charge(order=order)
    own_sandbox.switch_on("die_after", count=1)

    assert own_sandbox.charge(order=order).id == intent.id
    assert own_sandbox.client.v1.payment_intents.retrieve(intent.id).id == intent.id


def test_header_asks_for_a_fault_of_one_request(sandbox: Sandbox, order: str) -> None:
    with pytest.raises(stripe.APIConnectionError):
        sandbox.charge(order=order, headers={"Sandbox-Fault": "drop_answer"})

    assert sandbox.charge(order=order).last_response.headers["Idempotent-Replayed"] == "true"
    assert sandbox.ask("/controls.json")["faults"]["drop_answer"]["struck"] == 1


def strikes(sandbox: Sandbox) -> list[bool]:
    """Say for each of twenty requests whether the fault struck."""
    sandbox.ask("/controls", {"fault": "error_before", "rate": 0.5, "seed": 7})
    outcomes = []
    for _ in range(20):
        try:
            sandbox.client.v1.payment_intents.list({"limit": 1})
            outcomes.append(False)
        except stripe.APIError:
            outcomes.append(True)
    return outcomes


def test_rate_strikes_the_same_requests_when_the_seed_is_the_same(sandbox: Sandbox) -> None:
    first, second = strikes(sandbox), strikes(sandbox)

    assert first == second
    assert 3 < sum(first) < 17


def test_faults_leave_the_pages_alone(sandbox: Sandbox) -> None:
    for fault in ("refuse", "error_before", "latency"):
        sandbox.switch_on(fault, rate=1)

    assert sandbox.fetch("/ledger.json")[0] == 200
    assert sandbox.fetch("/healthz")[0] == 200


def test_delete_switches_all_faults_off(sandbox: Sandbox) -> None:
    sandbox.ask("/controls", {"fault": "refuse", "rate": 0.5, "count": 3, "seed": 7})

    state = sandbox.ask("/controls", method="DELETE")

    assert state["seed"] is None
    assert state["faults"]["refuse"] == {"rate": 0.0, "count": 0, "struck": 0}
    assert state == sandbox.ask("/controls.json")


def test_form_changes_what_the_json_changes(sandbox: Sandbox) -> None:
    status, _, page = sandbox.fetch("/controls", b"fault=latency&count=2&rate=0.5&seconds=1.5")

    assert status == 200
    assert "Switched on: <strong>latency</strong>" in page
    assert sandbox.ask("/controls.json")["faults"]["latency"] == {
        "rate": 0.5,
        "count": 2,
        "seconds": 1.5,
        "struck": 0,
    }
    sandbox.fetch("/controls", b"reset=all")
    assert sandbox.ask("/controls.json")["faults"]["latency"]["rate"] == 0


@pytest.mark.parametrize(
    "wanted",
    [
        {"fault": "earthquake", "count": 1},
        {"fault": "refuse", "rate": 2},
        {"fault": "refuse", "rate": "often"},
        {"fault": "refuse", "count": 0.5},
        {"fault": "refuse", "count": True},
        {"fault": "refuse", "seconds": 1},
        {"fault": "die_after", "rate": 0.5},
        {"seed": "lucky"},
        {"count": 1},
        [],
    ],
)
def test_unusable_setting_is_refused_with_a_reason(wanted: object, sandbox: Sandbox) -> None:
    before = sandbox.ask("/controls.json")

    status, _, body = sandbox.fetch("/controls", wanted)

    assert status == 400
    assert "error" in body
    assert sandbox.ask("/controls.json") == before


def test_form_of_another_site_is_refused(sandbox: Sandbox) -> None:
    request = Request(f"{sandbox.url}/controls", b"fault=refuse&count=1", {"Sec-Fetch-Site": "cross-site"})

    with pytest.raises(HTTPError) as caught:
        urlopen(request, timeout=5)

    caught.value.close()
    assert caught.value.code == 403
    assert sandbox.ask("/controls.json")["faults"]["refuse"]["count"] == 0
