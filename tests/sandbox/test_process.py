import smtplib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import stripe

from .conftest import ROOT, SECONDS, Sandbox, wait_for


@pytest.mark.parametrize("path", ["/", "/ledger", "/mail", "/crm", "/controls"])
def test_page_is_strict_and_has_no_inline_code(path: str, sandbox: Sandbox) -> None:
    status, headers, page = sandbox.fetch(path)

    assert status == 200
    assert "default-src 'none'; style-src 'self'" in headers["Content-Security-Policy"]
    assert "<script>" not in page
    assert ("<script src=" in page) == ("script-src 'self'" in headers["Content-Security-Policy"])
    assert "style=" not in page


def test_style_sheet_is_served(sandbox: Sandbox) -> None:
    assert "prefers-color-scheme: dark" in sandbox.fetch("/static/sandbox.css")[2]


@pytest.mark.parametrize("path", ["/unheard-of", "/mail/999999999", "/mail/999999999/html"])
def test_unknown_page_is_not_found(path: str, sandbox: Sandbox) -> None:
    assert sandbox.fetch(path)[0] == 404


@pytest.mark.parametrize("option", ["--port", "--smtp-port"])
def test_taken_port_ends_the_start_with_one_line(option: str, sandbox: Sandbox, tmp_path: Path) -> None:
    port = sandbox.port if option == "--port" else sandbox.smtp_port
    ports = {"--port": "0", "--smtp-port": "0"} | {option: port}
    arguments = [word for pair in ports.items() for word in pair]

    ended = subprocess.run(
        [sys.executable, "-m", "sandbox", *arguments, "--data", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert port in ended.stderr


def test_stops_at_once_while_a_bank_is_slow_and_a_mail_half_sent(own_sandbox: Sandbox, order: str) -> None:
    with ThreadPoolExecutor(1) as pool, smtplib.SMTP("127.0.0.1", int(own_sandbox.smtp_port)) as smtp:
        smtp.ehlo()
        own_sandbox.switch_on("latency", count=1, seconds=0)
        charge = pool.submit(own_sandbox.charge, "pm_card_slow", order)
        wait_for(lambda: own_sandbox.ask("/controls.json")["faults"]["latency"]["struck"])
        started = time.monotonic()
        own_sandbox.process.terminate()

        assert own_sandbox.wait_for_death() == 0
        # The bank would take thirty.
        assert time.monotonic() - started < 15
        with pytest.raises(stripe.APIConnectionError):
            charge.result(SECONDS)
        smtp.close()


def test_killed_while_the_bank_is_slow_charges_nothing_and_frees_the_key(own_sandbox: Sandbox, order: str) -> None:
    own_sandbox.switch_on("latency", count=1, seconds=0)
    with ThreadPoolExecutor(1) as pool:
        charge = pool.submit(own_sandbox.charge, "pm_card_slow", order)
        wait_for(lambda: own_sandbox.ask("/controls.json")["faults"]["latency"]["struck"])
        own_sandbox.kill()
        with pytest.raises(stripe.APIConnectionError):
            charge.result(SECONDS)
    own_sandbox.start()

    assert own_sandbox.charges(order) == []
    assert own_sandbox.charge(order=order).status == "succeeded"


def test_ledger_is_whole_when_killed_again_and_again_under_load(own_sandbox: Sandbox) -> None:
    """Every charge that a client was told of stands in the ledger, once for each key."""
    told: dict[str, str] = {}

    def charge(number: int) -> None:
        key = f"load-{number}"
        client = own_sandbox.client_with()
        intent = own_sandbox.charge(order=f"LOAD-{number}", key=key, client=client)
        assert told.setdefault(key, intent.id) == intent.id

    def charge_or_fail(number: int) -> bool:
        try:
            charge(number)
        except stripe.StripeError:
            return False
        return True

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(charge_or_fail, range(60))
            wait_for(lambda: own_sandbox.ask("/ledger.json")["totals"])
            own_sandbox.kill()
            list(answers)
        own_sandbox.start()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(charge_or_fail, range(60)))

    ledger = own_sandbox.ask("/ledger.json")
    assert {charge["key"]: charge["id"] for charge in ledger["charges"]} == told
    assert (len(ledger["charges"]), ledger["charged_twice"]) == (60, [])
