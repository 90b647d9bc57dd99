from concurrent.futures import ThreadPoolExecutor

import pytest
import stripe

from .conftest import Sandbox, error_of


def test_charge_succeeds_and_stands_in_the_ledger(sandbox: Sandbox, order: str) -> None:
    intent = sandbox.charge(order=order)

    assert (intent.status, intent.amount, intent.amount_received, intent.currency) == ("succeeded", 1250, 1250, "eur")
    assert intent.metadata.to_dict() == {"order": order, "attempt": "1"}
    (charge,) = sandbox.charges(order)
    assert (charge["id"], charge["key"], charge["status"]) == (intent.id, sandbox.key, "succeeded")
    assert (charge["amount"], charge["currency"], charge["asked"]) == (1250, "eur", 1)


def test_charge_is_replayed_when_the_key_is_repeated(sandbox: Sandbox, order: str) -> None:
    first = sandbox.charge(order=order)
    second = sandbox.charge(order=order)

    assert first.id == second.id
    assert first == second
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert [charge["asked"] for charge in sandbox.charges(order)] == [2]


def test_charge_is_refused_when_the_key_is_repeated_with_other_parameters(sandbox: Sandbox, order: str) -> None:
    sandbox.charge(order=order)

    with pytest.raises(stripe.IdempotencyError) as caught:
        sandbox.charge(order=order, amount=1251)

    assert caught.value.http_status == 400
    assert len(sandbox.charges(order)) == 1


def test_key_is_refused_when_repeated_at_another_endpoint(sandbox: Sandbox, order: str) -> None:
    intent = sandbox.charge(order=order)

    with pytest.raises(stripe.IdempotencyError):
        sandbox.client.v1.refunds.create({"payment_intent": intent.id}, {"idempotency_key": sandbox.key})


def test_second_request_gets_409_while_the_first_with_its_key_is_at_work(sandbox: Sandbox, order: str) -> None:
    def charge(_: int) -> str:
        try:
            return str(sandbox.charge("pm_card_slow", order).id)
        except stripe.APIError as error:
            return str(error.http_status)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(charge, range(8)))

    (charged,) = sandbox.charges(order)
    assert sorted(answers) == ["409"] * 7 + [charged["id"]]


def test_key_in_use_has_the_code_of_stripe(sandbox: Sandbox, order: str) -> None:
    impatient = sandbox.client_with(timeout=0.3)

    with pytest.raises(stripe.APIConnectionError):
        sandbox.charge("pm_card_slow", order, client=impatient)
    with pytest.raises(stripe.APIError) as caught:
        sandbox.charge("pm_card_slow", order)

    assert (caught.value.http_status, error_of(caught)["code"]) == (409, "idempotency_key_in_use")


def test_slow_card_succeeds_after_the_bank_has_taken_its_time(sandbox: Sandbox, order: str) -> None:
    impatient = sandbox.client_with(timeout=0.3)

    with pytest.raises(stripe.APIConnectionError):
        sandbox.charge("pm_card_slow", order, client=impatient)
    # The client repeats a 409 by itself, with the same key.
    patient = sandbox.client_with(retries=8)
    intent = sandbox.charge("pm_card_slow", order, client=patient)

    assert [charge["id"] for charge in sandbox.charges(order)] == [intent.id]


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card"),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", "incorrect_cvc"),
    ],
)
def test_card_is_declined_each_time_the_key_is_repeated(
    card: str, code: str, decline_code: str, sandbox: Sandbox, order: str
) -> None:
    for _ in range(2):
        with pytest.raises(stripe.CardError) as caught:
            sandbox.charge(card, order)

        error = error_of(caught)
        assert caught.value.http_status == 402
        assert (error["type"], error["code"], error["decline_code"]) == ("card_error", code, decline_code)
        assert error["payment_intent"]["status"] == "requires_payment_method"

    (charge,) = sandbox.charges(order)
    assert (charge["status"], charge["asked"]) == ("declined", 2)


@pytest.mark.parametrize("amount", [0, -1, "12.50", "", 10**8])
def test_charge_is_refused_when_the_amount_is_none(amount: object, sandbox: Sandbox, order: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        sandbox.charge(order=order, amount=amount)

    assert (caught.value.http_status, caught.value.param) == (400, "amount")
    assert sandbox.charges(order) == []


def test_key_may_be_used_again_when_the_request_was_invalid(sandbox: Sandbox, order: str) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        sandbox.charge(order=order, amount=0)

    assert sandbox.charge(order=order).status == "succeeded"


def test_charge_is_refused_when_the_payment_method_is_unknown(sandbox: Sandbox, order: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        sandbox.charge("pm_card_unheard_of", order)

    assert (caught.value.http_status, caught.value.code) == (400, "resource_missing")
    assert "No such PaymentMethod" in str(caught.value)


@pytest.mark.parametrize("key", ["sk_live_x", "whatever"])
def test_api_key_is_refused_when_it_is_no_test_key(key: str, sandbox: Sandbox, order: str) -> None:
    with pytest.raises(stripe.AuthenticationError):
        sandbox.charge(order=order, client=sandbox.client_with(key))

    assert sandbox.charges(order) == []


def test_request_without_api_key_is_refused(sandbox: Sandbox) -> None:
    status, _, body = sandbox.fetch("/v1/payment_intents")

    assert status == 401
    assert '"invalid_request_error"' in body


def test_payment_intent_is_retrieved(sandbox: Sandbox, order: str) -> None:
    intent = sandbox.charge(order=order)

    assert sandbox.client.v1.payment_intents.retrieve(intent.id) == intent
    with pytest.raises(stripe.InvalidRequestError) as caught:
        sandbox.client.v1.payment_intents.retrieve("pi_unheard_of")
    assert caught.value.http_status == 404


def test_payment_intents_are_listed_page_by_page_newest_first(sandbox: Sandbox, order: str) -> None:
    charged = [sandbox.charge(order=order, key=f"{sandbox.key}-{number}") for number in range(5)]
    since = {"gte": charged[0].created}

    pages = sandbox.client.v1.payment_intents.list({"limit": 2, "created": since})
    listed = [intent.id for intent in pages.auto_paging_iter() if intent.metadata["order"] == order]

    assert len(pages.data) == 2
    assert listed == [intent.id for intent in reversed(charged)]
    assert sandbox.client.v1.payment_intents.list({"created": {"lt": charged[0].created - 3600}}).data == []


def test_unknown_url_is_answered_as_stripe_does(sandbox: Sandbox) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        sandbox.client.v1.customers.create({"email": "alice@example.com"})

    assert caught.value.http_status == 404
    assert "Unrecognized request URL" in str(caught.value)


def test_refund_gives_all_back_once(sandbox: Sandbox, order: str) -> None:
    intent = sandbox.charge(order=order)
    key = f"{sandbox.key}-refund"

    first = sandbox.client.v1.refunds.create({"payment_intent": intent.id}, {"idempotency_key": key})
    second = sandbox.client.v1.refunds.create({"payment_intent": intent.id}, {"idempotency_key": key})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        sandbox.client.v1.refunds.create({"payment_intent": intent.id})

    assert (first.id, first.amount, first.status) == (second.id, 1250, "succeeded")
    assert (caught.value.http_status, caught.value.code) == (400, "charge_already_refunded")
    ledger = sandbox.ask(f"/ledger.json?order={order}")
    assert [(refund["id"], refund["asked"]) for refund in ledger["refunds"]] == [(first.id, 2)]
    assert [charge["status"] for charge in ledger["charges"]] == ["refunded"]


def test_refund_in_parts_never_exceeds_the_charge(sandbox: Sandbox, order: str) -> None:
    intent = sandbox.charge(order=order)
    refunds = sandbox.client.v1.refunds

    refunds.create({"payment_intent": intent.id, "amount": 1000})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        refunds.create({"payment_intent": intent.id, "amount": 251})
    assert [charge["status"] for charge in sandbox.charges(order)] == ["partially_refunded"]
    rest = refunds.create({"payment_intent": intent.id})

    assert (caught.value.http_status, caught.value.param, rest.amount) == (400, "amount", 250)
    (charge,) = sandbox.charges(order)
    assert (charge["status"], charge["refunded"]) == ("refunded", 1250)
    assert len(refunds.list({"payment_intent": intent.id}).data) == 2
    assert refunds.retrieve(rest.id).payment_intent == intent.id


def test_refund_is_refused_when_the_charge_was_declined(sandbox: Sandbox, order: str) -> None:
    with pytest.raises(stripe.CardError) as caught:
        sandbox.charge("pm_card_visa_chargeDeclined", order)
    intent = error_of(caught)["payment_intent"]["id"]

    with pytest.raises(stripe.InvalidRequestError):
        sandbox.client.v1.refunds.create({"payment_intent": intent})


def test_refund_is_refused_when_the_payment_intent_is_unknown(sandbox: Sandbox) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        sandbox.client.v1.refunds.create({"payment_intent": "pi_unheard_of"})

    assert caught.value.code == "resource_missing"


def test_ledger_is_loud_when_an_order_was_charged_twice(sandbox: Sandbox, order: str) -> None:
    first, second = (sandbox.charge(order=order, key=f"{sandbox.key}-{number}") for number in range(2))
    loud = sandbox.fetch(f"/ledger?order={order}")[2]
    twice = sandbox.ask("/ledger.json")["charged_twice"]
    sandbox.client.v1.refunds.create({"payment_intent": first.id})

    assert order in twice
    assert 'class="alarm"' in loud
    assert order not in sandbox.ask("/ledger.json")["charged_twice"]
    assert 'class="alarm"' not in sandbox.fetch(f"/ledger?order={order}")[2]
    assert second.status == "succeeded"


def test_ledger_adds_up_what_was_charged_refunded_and_kept(sandbox: Sandbox, order: str) -> None:
    intent = sandbox.charge(order=order)
    sandbox.client.v1.refunds.create({"payment_intent": intent.id, "amount": 250})
    with pytest.raises(stripe.CardError):
        sandbox.charge("pm_card_visa_chargeDeclined", order, key=f"{sandbox.key}-declined")

    (total,) = sandbox.ask(f"/ledger.json?order={order}")["totals"]

    assert total == {
        "currency": "eur",
        "charges": 1,
        "declined": 1,
        "charged": 1250,
        "refunded": 250,
        "kept": 1000,
        "asked": 2,
    }
