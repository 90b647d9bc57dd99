"""Mail that rows owe, against a tiny real SMTP server where it matters what the server says."""

import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from django.core import mail as outbox
from django.core.mail import EmailMultiAlternatives
from django.utils import timezone

from accounts import emails, tasks
from accounts.models import AccountMail
from myproject import mail
from myproject.errors import TemporaryError
from orders import emails as order_emails
from tests.factories import make_mail, make_product, make_user, place_order

pytestmark = pytest.mark.django_db


class Inbox:
    """Accepts what it is sent, unless it was told another answer to that command."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.received: list[bytes] = []

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        envelope.mail_from = address
        return self.answers.get("MAIL", "250 OK")

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        envelope.rcpt_tos.append(address)
        return self.answers.get("RCPT", "250 OK")

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if "DATA" not in self.answers:
            self.received.append(envelope.content)
        return self.answers.get("DATA", "250 OK")


def refuse(*args: Any) -> AuthResult:
    return AuthResult(success=False, handled=False)


@pytest.fixture
def smtp(settings: Any) -> Iterator[Inbox]:
    inbox = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Controller(inbox, hostname="127.0.0.1", port=port, authenticator=refuse, auth_require_tls=False)
    server.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
    yield inbox
    server.stop()


# --- What the server answers ---


def test_mail_is_sent_and_recorded(smtp: Inbox) -> None:
    row = make_mail()

    sent = mail.deliver(row, emails.account)

    row.refresh_from_db()
    assert (sent, len(smtp.received), row.mail_error) == (True, 1, "")
    assert row.mail_sent_at is not None


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
def test_mail_is_given_back_when_the_server_says_later(command: str, smtp: Inbox) -> None:
    row = make_mail()
    smtp.answers[command] = "451 Try again later"

    with pytest.raises(TemporaryError, match="451 Try again later"):
        mail.deliver(row, emails.account)

    assert list(AccountMail.objects.mail_due()) == [row]


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
def test_mail_ends_with_the_reason_when_the_server_says_never(command: str, smtp: Inbox) -> None:
    row = make_mail()
    smtp.answers[command] = "550 No such mailbox"

    sent = mail.deliver(row, emails.account)

    row.refresh_from_db()
    assert (sent, row.mail_due_at, row.mail_sent_at) == (False, None, None)
    assert row.mail_error == "550 No such mailbox"


def test_mail_is_given_back_when_our_password_is_wrong(smtp: Inbox, settings: Any) -> None:
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "shop", "wrong"
    row = make_mail()

    with pytest.raises(TemporaryError, match="The mail server refuses our password"):
        mail.deliver(row, emails.account)

    assert list(AccountMail.objects.mail_due()) == [row]


def test_mail_is_given_back_when_nobody_listens(settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    row = make_mail()

    with pytest.raises(TemporaryError, match="The mail server does not answer"):
        mail.deliver(row, emails.account)

    assert list(AccountMail.objects.mail_due()) == [row]


def test_mail_is_sent_by_the_next_attempt_when_the_first_one_failed(smtp: Inbox) -> None:
    row = make_mail()
    smtp.answers["RCPT"] = "450 Busy"
    tasks.send_account_email.apply(kwargs={"mail_id": row.pk})
    smtp.answers.clear()

    tasks.send_account_email.apply(kwargs={"mail_id": row.pk}).get()

    row.refresh_from_db()
    assert (len(smtp.received), row.mail_sent_at is not None) == (1, True)


# --- Once ---


def test_mail_twice_is_once() -> None:
    row = make_mail()

    sent = [mail.deliver(row, emails.account) for _ in range(3)]

    assert sent == [True, False, False]
    assert len(outbox.outbox) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda now: {"mail_due_at": None},
        lambda now: {"mail_due_at": now + timedelta(minutes=1)},
        lambda now: {"mail_sent_at": now},
    ],
)
def test_mail_is_not_sent_when_it_is_not_due(change: Callable[[Any], dict[str, Any]]) -> None:
    row = make_mail()
    AccountMail.objects.update(**change(timezone.now()))

    assert mail.deliver(row, emails.account) is False
    assert outbox.outbox == []


def test_claim_mail_holds_it_for_the_lease() -> None:
    row = make_mail()

    first, second = row.claim_mail(), row.claim_mail()

    row.refresh_from_db()
    assert (first, second) == (True, False)
    assert row.mail_due_at is not None
    assert abs(row.mail_due_at - timezone.now() - mail.LEASE) < timedelta(seconds=1)


def test_lease_of_a_mail_is_longer_than_its_tasks_may_take() -> None:
    limits = [
        task.time_limit for task in (tasks.send_account_email, tasks.send_welcome_email, tasks.send_notification_email)
    ]

    assert max(limits) < mail.LEASE.total_seconds()


def test_mail_error_is_cut_when_it_is_too_long() -> None:
    row = make_mail()

    row.mark_mail_failed("x" * 400)

    row.refresh_from_db()
    assert len(row.mail_error) == 300


# --- What it says ---


def html_of(message: EmailMultiAlternatives) -> str:
    [(content, mimetype)] = message.alternatives
    assert mimetype == "text/html"
    return str(content)


def test_welcome_is_addressed_and_leads_to_the_shop() -> None:
    user = make_user(name="Alice <b>", email="alice@example.com")

    message = emails.welcome(user)

    html = html_of(message)
    assert message.to == ["alice@example.com"]
    assert ("Hello Alice <b>" in message.body, "Alice &lt;b&gt;" in html) == (True, True)
    assert ("http://localhost:" in message.body, "http://localhost:" in html) == (True, True)


def test_confirmation_lists_the_items_and_the_total() -> None:
    order = place_order(product=make_product(name="Lamp & Co"), quantity=3)

    message = order_emails.confirmation(order)

    assert order.reference in message.subject
    assert "3 x Lamp & Co: € 37.50" in message.body
    assert "Total: € 37.50" in message.body
    assert order.get_absolute_url() in message.body
    assert "Lamp &amp; Co" in html_of(message)


def test_message_id_is_the_same_for_each_attempt() -> None:
    order, row = place_order(), make_mail()

    ids = [order_emails.confirmation(order).extra_headers["Message-ID"] for _ in range(2)]

    assert ids == [f"<order-{order.reference}@localhost>"] * 2
    assert emails.account(row).extra_headers["Message-ID"] == f"<account-{row.pk}@localhost>"


def test_account_mail_is_text_only_when_it_has_no_html() -> None:
    message = emails.account(make_mail(html=""))

    assert (message.body, message.alternatives) == ("A link", [])
