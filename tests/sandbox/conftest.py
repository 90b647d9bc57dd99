import json
import os
import re
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
import stripe

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 15
READY = re.compile(r"Sandbox ready: (http://127\.0\.0\.1:(\d+)) and smtp://127\.0\.0\.1:(\d+)")


class Sandbox:
    """A sandbox in a process of its own, on ports that it keeps when it is started again."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data, self.arguments = data, arguments
        self.port = self.smtp_port = "0"
        self.key = str(uuid4())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.terminate()
        self.wait_for_death()

    def start(self) -> None:
        ports = ["--port", self.port, "--smtp-port", self.smtp_port]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sandbox", *ports, "--data", str(self.data), *self.arguments],
            cwd=ROOT,
            env=os.environ | {"SANDBOX_HOST": "127.0.0.1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        ready = READY.match(self.process.stdout.readline())
        assert ready is not None
        self.url, self.port, self.smtp_port = ready.groups()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.wait_for_death()

    def wait_for_death(self) -> int:
        with self.process:
            return self.process.wait(SECONDS)

    @property
    def client(self) -> Any:
        return self.client_with()

    def client_with(self, key: str = "sk_test_x", retries: int = 0, timeout: float = SECONDS) -> Any:
        transport = stripe.RequestsClient(timeout=timeout)
        return stripe.StripeClient(
            key, base_addresses={"api": self.url}, max_network_retries=retries, http_client=transport
        )

    def charge(self, card: str = "pm_card_visa", order: str = "K7QM-2XWD", **options: Any) -> Any:
        """Charge 12.50 EUR under this sandbox's one key; `amount`, `key`, `client` and `headers` say otherwise."""
        client = options.get("client", self.client)
        return client.v1.payment_intents.create(
            {
                "amount": options.get("amount", 1250),
                "currency": "eur",
                "payment_method": card,
                "payment_method_types": ["card"],
                "confirm": True,
                "metadata": {"order": order, "attempt": "1"},
            },
            {"idempotency_key": options.get("key", self.key), "headers": options.get("headers", {})},
        )

    def switch_on(self, fault: str, **setting: float) -> Any:
        return self.ask("/controls", {"fault": fault, **setting})

    def ask(self, path: str, data: object = None, method: str | None = None) -> Any:
        """Get, or with data post, JSON."""
        return json.loads(self.fetch(path, data, method)[2])

    def fetch(self, path: str, data: object = None, method: str | None = None) -> tuple[int, Any, str]:
        """Return the status, the headers and the text of the answer."""
        body = data if isinstance(data, bytes) else None if data is None else json.dumps(data).encode()
        kind = "application/x-www-form-urlencoded" if isinstance(data, bytes) else "application/json"
        request = Request(self.url + path, body, {"Content-Type": kind}, method=method)
        try:
            with urlopen(request, timeout=SECONDS) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()

    def charges(self, order: str = "K7QM-2XWD") -> list[dict[str, Any]]:
        charges: list[dict[str, Any]] = self.ask(f"/ledger.json?order={order}")["charges"]
        return charges

    def send(self, message: EmailMessage) -> None:
        with smtplib.SMTP("127.0.0.1", int(self.smtp_port), timeout=SECONDS) as smtp:
            smtp.send_message(message)


def error_of(caught: pytest.ExceptionInfo[Any]) -> dict[str, Any]:
    error: dict[str, Any] = caught.value.json_body["error"]
    return error


def wait_for(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Ask until the condition holds and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("sandbox"), "--slow-seconds", "1") as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(process: Sandbox) -> Sandbox:
    """The sandbox that tests share: all faults off, and an idempotency key that is new."""
    process.ask("/controls", method="DELETE")
    process.key = str(uuid4())
    return process


@pytest.fixture
def order() -> str:
    return f"ORDER-{uuid4()}"


@pytest.fixture
def own_sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox that a test may kill."""
    with Sandbox(tmp_path / "data", "--slow-seconds", "30") as sandbox:
        yield sandbox
