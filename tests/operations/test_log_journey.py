"""What a whole journey leaves in logs, broker and results: all ids, and no personal data."""

import base64
import binascii
import json
import re
import threading
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django_celery_results.models import TaskResult
from redis import Redis
from redis.exceptions import RedisError

from accounts import unsubscribe
from accounts.models import AccountMail, User
from accounts.tasks import send_account_email
from myproject import embedded
from myproject import tasks as samples
from orders.models import Card, Order, Product, Status
from reports.models import Report
from tests.factories import make_mail
from tests.shop import OURS, Shop, wait_for

pytestmark = pytest.mark.operations

NAME, EMAIL, PASSWORD = "Aurelia Quennell", "aurelia.quennell@example.org", "wren-quartz-saddle"
WRONG, STRANGER = "thimble-wrong-guess", "nobody.known@example.org"
ADDRESS, DATABASE_PASSWORD = "203.0.113.77", "thicket-of-the-database"
REQUEST_ID = "11112222-click-of-the-journey"
# Of the shop itself; not of anybody's request or task.
OF_THE_PROCESS = re.compile(r"celery\.|gunicorn|uvicorn|kombu|flower|myproject\.live|py\.warnings")


class Tap(threading.Thread):
    """Records what goes through the broker, as Redis's own MONITOR tells it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        socket = str(embedded.socket_dir(settings.VAR_DIR) / "redis.sock")
        # However long nothing is said.
        self.monitor = Redis(unix_socket_path=socket, socket_timeout=None).monitor()
        self.monitor.__enter__()
        self.commands: list[str] = []
        self.start()

    def run(self) -> None:
        while True:
            try:
                self.commands.append(self.monitor.next_command()["command"])
            except (RedisError, OSError, ValueError):
                return

    def stop(self) -> None:
        # Ends the waiting for the next command.
        self.monitor.connection.disconnect()
        self.join()

    def text(self) -> str:
        """Return all that was sent, the bodies of messages decoded."""
        recorded = "\n".join(self.commands)
        return recorded + "\n".join(map(decoded, re.findall(r"[A-Za-z0-9+/]{20,}={0,2}", recorded)))


def decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode(errors="replace")
    except binascii.Error:
        return ""


class Visitor:
    """A customer with a browser, more or less; keeps what must not be found again."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.session = requests.Session()
        self.session.headers.update({"X-Forwarded-For": ADDRESS, "Referer": settings.SITE_URL})
        self.secrets: set[str] = set()

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(settings.SITE_URL + path, timeout=30, **options)

    def post(self, path: str, data: dict[str, Any], page: str = "", **options: Any) -> requests.Response:
        found = re.findall(r'name="(csrfmiddlewaretoken|token|contents)" value="([^"]+)"', self.get(page or path).text)
        answer = self.session.post(settings.SITE_URL + path, dict(found) | data, timeout=30, **options)
        self.secrets |= {value for name, value in self.session.cookies.items() if name == "sessionid" and value}
        return answer

    def link_in_mail(self, pattern: str) -> str:
        def found() -> str:
            mails = self.shop.sandbox(f"/mail.json?to={EMAIL}")
            links = [link for mail in mails for link in re.findall(pattern, unescape(mail["text"]))]
            return links[0] if links else ""

        path = urlsplit(wait_for(found, f"a mail with {pattern}")).path
        self.secrets.add(path.strip("/").split("/")[-1])
        return path

    def order(self, card: str, **headers: str) -> tuple[Order, str]:
        """Order a lamp; return the order and the id of the request."""
        product = Product.objects.on_sale().filter(stock__gt=5).order_by("pk")[0]
        path = f"/products/{product.slug}/"
        self.post(f"/basket/add/{product.slug}/", {"quantity": 1}, page=path)
        answer = self.post("/checkout/", {"card": card}, headers=headers, allow_redirects=False)
        reference = answer.headers["Location"].strip("/").split("/")[-1]
        return Order.objects.get(reference=reference), answer.headers["X-Request-ID"]


class Journey:
    """All that happened, and what was written of it."""

    def __init__(self, shop: Shop, log: Path) -> None:
        self.shop, self.log, self.visitor = shop, log, Visitor(shop)

    def walk(self) -> None:
        visitor = self.visitor
        details = {"email": EMAIL, "name": NAME, "password1": PASSWORD, "password2": PASSWORD}
        visitor.post("/accounts/signup/", details)
        person = User.objects.get(email=EMAIL)
        self.shop.sandbox("/controls", {"fault": "error_before", "count": 1})
        # Its webhook may be faster than the task, and the mail is then that request's.
        self.shop.sandbox("/controls", {"fault": "webhook_lost", "count": 1})
        self.order, self.request_id = visitor.order(Card.VISA, **{"X-Request-ID": REQUEST_ID})
        wait_for(Order.objects.filter(pk=self.order.pk, mail_sent_at__isnull=False).exists, "the confirmation")
        self.declined, _ = visitor.order(Card.DECLINED)
        wait_for(Order.objects.filter(pk=self.declined.pk, status=Status.PAYMENT_FAILED).exists, "the refusal")
        visitor.get(visitor.link_in_mail(r"\S+/confirm-email/\S+"))
        self.take_a_report()
        leave = urlsplit(unsubscribe.url(person, "digest")).path
        visitor.secrets.add(leave.strip("/").split("/")[-1])
        visitor.post(leave, {})
        visitor.get(leave[:-4] + "x/")
        visitor.get(f"/nowhere/{leave}?email={quote(EMAIL)}")
        self.come_back()
        self.fail()

    def take_a_report(self) -> None:
        self.visitor.post("/reports/statement/", {"start": "2026-01-01", "end": "2026-01-31", "format": "pdf"})
        wait_for(Report.objects.filter(status="ready").exists, "the statement")
        file = self.visitor.get(f"/reports/{Report.objects.get().pk}/download/")
        assert file.content.startswith(b"%PDF")
        self.visitor.secrets.add(urlsplit(file.url).path.strip("/").split(":")[-1])

    def come_back(self) -> None:
        stranger = Visitor(self.shop)
        stranger.post("/accounts/login/", {"login": EMAIL, "password": WRONG})
        stranger.post("/accounts/login/", {"login": STRANGER, "password": WRONG})
        stranger.post("/accounts/password/reset/", {"email": EMAIL})
        path = self.visitor.link_in_mail(r"\S+/password/reset/key/\S+")
        stranger.get(path)
        stranger.get(path.replace("-", "/", 1))
        forged = {"Stripe-Signature": "t=1,v1=f00d"}
        stranger.session.post(f"{settings.SITE_URL}/webhooks/payments/", f'{{"to": "{EMAIL}"}}', headers=forged)
        self.visitor.secrets |= stranger.secrets

    def fail(self) -> None:
        self.failed = samples.fail.delay().id
        wait_for(TaskResult.objects.filter(task_id=self.failed, status="FAILURE").exists, "the failure")
        # Django refuses such a header by an error that quotes it.
        bad = make_mail(to=EMAIL, subject=f"{NAME}\nBcc: {EMAIL}")
        send_account_email.delay(mail_id=bad.pk)
        wait_for(AccountMail.objects.filter(pk=bad.pk).mail_failed().exists, "the refused mail")

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of all processes; each must be JSON, except what Celery says past all logging at its end."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line and line != "worker: Warm shutdown (MainProcess)"]

    def private(self) -> set[str]:
        keys = {settings.SECRET_KEY, settings.STRIPE_API_KEY, settings.STRIPE_WEBHOOK_SECRET}
        tokens = {settings.CRM_TOKEN, settings.WAREHOUSE_TOKEN, DATABASE_PASSWORD, Card.VISA.value}
        people = {*NAME.split(), EMAIL, quote(EMAIL), PASSWORD, WRONG, STRANGER, ADDRESS}
        return keys | tokens | people | self.visitor.secrets


@pytest.fixture
def journey(shop: Shop, tmp_path: Path) -> tuple[Journey, Tap]:
    call_command("seed_demo", empty=True)
    url = embedded.database_url(settings.VAR_DIR, connection.settings_dict["NAME"])
    with_password = url.replace("postgres@", f"postgres:{DATABASE_PASSWORD}@")
    journey, tap = Journey(shop, tmp_path / "journey.log"), Tap()
    # However slow the machine is, no sweep takes the order up before its own retry.
    variables = {"LOG_FORMAT": "json", "DATABASE_URL": with_password, "ORDER_LEASE_SECONDS": "60"}
    with shop.started_anew(journey.log, *OURS, **variables):
        journey.walk()
    tap.stop()
    return journey, tap


def found(secrets: set[str], text: str) -> list[str]:
    return sorted(secret for secret in secrets if secret.lower() in text.lower())


@pytest.mark.timeout(240)
def test_journey_can_be_followed_and_tells_nothing_of_anybody(journey: tuple[Journey, Tap]) -> None:
    told, tap = journey
    lines, private = told.lines(), told.private()
    results = "\n".join(str(row) for row in TaskResult.objects.values())

    # No personal data in any of the three.
    assert len(private) >= 20
    assert '"order_id"' in tap.text()
    assert found(private, told.log.read_text()) == []
    assert found(private, tap.text()) == []
    assert found(private, results) == []

    # A line says what, when, how bad and who; and for which request or task, unless it is the process's own.
    assert all({"event", "timestamp", "level", "logger"} <= line.keys() for line in lines)
    ours = [line for line in lines if not OF_THE_PROCESS.match(line["logger"])]
    lost = [line for line in ours if not {"request_id", "task_id", "child_task_id"} & line.keys()]
    assert lost == []

    assert_one_request_is_followed(told, lines)
    assert_one_order_is_followed(told, lines)
    [failure] = [line for line in lines if line["event"] == "task_failed" and line["task_id"] == told.failed]
    assert failure["task"] == samples.fail.name


def assert_one_request_is_followed(told: Journey, lines: list[dict[str, Any]]) -> None:
    """From click to mail, by its id: through the retry that the sandbox's fault made necessary."""
    its = [line for line in lines if line.get("request_id") == REQUEST_ID]
    started = [line["task"] for line in its if line["event"] == "task_started"]
    assert told.request_id == REQUEST_ID
    assert [line["request"] for line in its if line["event"] == "request_finished"] == ["POST /checkout/"]
    assert [line["task"] for line in its if line["event"] == "task_retrying"] == ["orders.tasks.process_order"]
    assert sorted(started) == ["orders.tasks.process_order"] * 2 + ["orders.tasks.send_order_confirmation"]
    assert any(line["event"].startswith("Mail of order") for line in its)


def assert_one_order_is_followed(told: Journey, lines: list[dict[str, Any]]) -> None:
    its = [line for line in lines if line.get("order") == told.order.reference]
    events = [line["event"] for line in its]
    story = ["placed", "processing", "completed"]
    assert [word for word in story if any(f"is {word}" in event for event in events)] == story
    assert {"task_enqueued", "task_started", "task_retrying", "request_finished"} <= set(events)
    assert any(event.startswith("Mail of order") for event in events)
    assert not any(told.declined.reference in json.dumps(line) for line in its)
