"""Mail that rows owe, against a tiny real SMTP server where it matters what the server says."""

import socket
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import time_machine
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from celery.exceptions import SoftTimeLimitExceeded
from django.core import mail as outbox
from django.core.mail import EmailMultiAlternatives
from django.db import OperationalError, connection
from django.utils import timezone

from accounts import emails, tasks
from accounts.models import AccountMail
from durable import mail
from durable.errors import TemporaryError
from orders import emails as order_emails
from tests.factories import make_mail, make_product, make_user, place_order

pytestmark = pytest.mark.django_db


class Inbox:
    """Accepts what it is sent, unless it was told another answer to that command."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.received: list[bytes] = []
        # Who is there, by address, and from which port each client spoke.
        self.refused: dict[str, str] = {}
        self.hung_up: set[str] = set()
        self.clients: set[Any] = set()

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        envelope.mail_from = address
        return self.answers.get("MAIL", "250 OK")

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        envelope.rcpt_tos.append(address)
        self.clients.add(session.peer)
        if address in self.hung_up:
            server.transport.abort()
        return self.refused.get(address) or self.answers.get("RCPT", "250 OK")

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


def deliver(message: mail.Message = emails.account, *, first: int | None = None, **options: Any) -> int:
    return mail.deliver(AccountMail.objects.claim_mail(first), message, **options)


def make_mails(count: int) -> list[AccountMail]:
    return [make_mail(to=f"person{number}@example.com") for number in range(count)]


def were_sent(rows: Iterable[AccountMail]) -> list[bool]:
    return [AccountMail.objects.get(pk=row.pk).mail_sent_at is not None for row in rows]


def due_in(row: AccountMail) -> timedelta:
    row.refresh_from_db()
    assert row.mail_due_at is not None
    return row.mail_due_at - timezone.now()


def make_due(**fields: Any) -> None:
    AccountMail.objects.unsent().update(mail_due_at=timezone.now(), **fields)


# --- What the server answers ---


def test_mail_is_sent_and_recorded(smtp: Inbox) -> None:
    row = make_mail()

    sent = deliver()

    row.refresh_from_db()
    assert (sent, len(smtp.received), row.mail_error) == (1, 1, "")
    assert row.mail_sent_at is not None


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
def test_mail_ends_with_the_reason_when_the_server_says_never(command: str, smtp: Inbox) -> None:
    row = make_mail()
    smtp.answers[command] = "550 No such mailbox"

    sent = deliver()

    row.refresh_from_db()
    assert (sent, row.mail_due_at, row.mail_sent_at) == (0, None, None)
    assert row.mail_error == "550 No such mailbox"


@pytest.mark.parametrize("command", ["MAIL", "DATA"])
def test_mails_are_given_back_when_the_server_takes_nothing_now(command: str, smtp: Inbox) -> None:
    rows = make_mails(3)
    smtp.answers[command] = "451 Try again later"

    with pytest.raises(mail.Disconnected, match="451 Try again later"):
        deliver()

    assert list(AccountMail.objects.mail_due()) == rows[1:]
    assert [row.mail_error for row in AccountMail.objects.order_by("pk")] == ["451 Try again later", "", ""]


def test_mail_is_given_back_when_our_password_is_wrong(smtp: Inbox, settings: Any) -> None:
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "shop", "wrong"
    row = make_mail()

    with pytest.raises(TemporaryError, match="The mail server refuses our password"):
        deliver()

    assert list(AccountMail.objects.mail_due()) == [row]


def test_mail_is_given_back_and_never_fails_when_the_server_is_down(settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    row = make_mail(created_at=timezone.now() - 2 * mail.TRIED_FOR)

    for _ in range(2):
        with pytest.raises(mail.Disconnected, match="The mail server does not answer"):
            deliver()

    assert list(AccountMail.objects.mail_due()) == [row]


# --- A recipient who is put off ---


def test_mail_is_sent_by_a_later_attempt_when_its_recipient_was_put_off(smtp: Inbox) -> None:
    row = make_mail()
    smtp.answers["RCPT"] = "450 Busy"
    tasks.send_account_email.apply(kwargs={"mail_id": row.pk}).get()
    smtp.answers.clear()
    make_due()

    tasks.send_account_email.apply(kwargs={"mail_id": row.pk}).get()

    assert (len(smtp.received), were_sent([row])) == (1, [True])


def test_mail_that_is_put_off_stops_no_other_and_stands_behind_them(smtp: Inbox) -> None:
    rows = make_mails(3)
    smtp.refused["person1@example.com"] = "451 Greylisted"

    sent = deliver()

    rows[1].refresh_from_db()
    assert (sent, were_sent(rows), len(smtp.clients)) == (2, [True, False, True], 1)
    assert (rows[1].mail_error, AccountMail.objects.mail_due().count()) == ("451 Greylisted", 0)


@pytest.mark.parametrize(
    ("owed_for", "pause"),
    [(0, 1), (120, 120), (mail.PAUSE.seconds + 60, mail.PAUSE.seconds), (86400, mail.PAUSE.seconds)],
)
def test_mail_is_put_off_for_as_long_as_it_is_owed_within_bounds(owed_for: int, pause: int, smtp: Inbox) -> None:
    smtp.answers["RCPT"] = "452 Mailbox full"

    with time_machine.travel(timezone.now(), tick=False):
        row = make_mail(created_at=timezone.now() - timedelta(seconds=owed_for))
        deliver()

        assert due_in(row) == timedelta(seconds=pause)


def test_mail_fails_when_it_is_put_off_for_days(smtp: Inbox) -> None:
    row = make_mail()
    smtp.answers["RCPT"] = "452 Mailbox full"
    deliver()
    make_due(created_at=timezone.now() - mail.TRIED_FOR)

    deliver()

    row.refresh_from_db()
    assert (row.mail_failed, row.mail_error) == (True, "452 Mailbox full")


def test_mail_has_another_attempt_when_the_first_one_is_late(smtp: Inbox) -> None:
    row = make_mail(created_at=timezone.now() - 2 * mail.TRIED_FOR)
    smtp.answers["RCPT"] = "451 Greylisted"

    deliver()

    assert due_in(row) <= mail.PAUSE


def test_mail_is_not_owed_again_when_it_was_called_off_during_a_failed_attempt() -> None:
    make_mails(3)
    claimed = AccountMail.objects.claim_mail()
    AccountMail.objects.update(mail_due_at=None)

    claimed[0].put_off_mail("451")
    claimed[1].mark_mail_failed("550")
    AccountMail.objects.held(claimed, mail.MAIL).update(mail_due_at=timezone.now())

    assert list(AccountMail.objects.values_list("mail_due_at", "mail_error")) == [(None, "")] * 3


# --- Many at once ---


def test_mails_of_a_set_share_one_connection(smtp: Inbox) -> None:
    rows = make_mails(4)

    count = mail.deliver(AccountMail.objects.claim_mail(rows[2].pk, limit=3), emails.account)

    assert (count, len(smtp.received), len(smtp.clients)) == (3, 3, 1)
    assert were_sent(rows) == [True, True, True, False]
    assert b"person2@" in smtp.received[0]


def test_mail_that_is_refused_for_good_harms_no_other(smtp: Inbox) -> None:
    rows = make_mails(3)
    smtp.refused["person1@example.com"] = "550 No such mailbox"

    count = deliver()

    rows[1].refresh_from_db()
    assert (count, were_sent(rows), len(smtp.clients)) == (2, [True, False, True], 1)
    assert (rows[1].mail_failed, rows[1].mail_error) == (True, "550 No such mailbox")


@pytest.mark.parametrize("code", [450, 550])
def test_mail_that_is_refused_in_strange_words_harms_no_other(code: int, smtp: Inbox) -> None:
    rows = make_mails(3)
    smtp.refused[rows[1].to] = f"{code} No\0 such\x1b[31m mailbox"

    deliver()

    assert were_sent(rows) == [True, False, True]
    assert AccountMail.objects.get(pk=rows[1].pk).mail_error == f"{code} No· such·[31m mailbox"


def test_mail_that_cannot_be_written_harms_no_other(smtp: Inbox) -> None:
    rows = make_mails(2)
    AccountMail.objects.filter(pk=rows[0].pk).update(to="nobody\n@example.com")

    deliver()

    rows[0].refresh_from_db()
    assert (were_sent(rows), rows[0].mail_failed) == ([False, True], True)


def test_mail_that_we_fail_to_write_waits_and_harms_no_other(smtp: Inbox) -> None:
    rows = make_mails(2)

    def write(row: AccountMail) -> EmailMultiAlternatives:
        if row == rows[0]:
            raise LookupError("a template names a field that is no more")
        return emails.account(row)

    mail.deliver(AccountMail.objects.order_by("pk").claim_mail(), write)

    rows[0].refresh_from_db()
    assert were_sent(rows) == [False, True]
    assert (rows[0].mail_error, rows[0].mail_failed) == ("The mail could not be written: LookupError.", False)


@pytest.mark.parametrize("at_once", [1, 50])
@pytest.mark.parametrize("how", ["hangs up", "answers 421"])
def test_mails_are_given_back_when_the_server_goes_in_their_midst(how: str, at_once: int, smtp: Inbox) -> None:
    rows = make_mails(4)
    if how == "hangs up":
        smtp.hung_up.add("person1@example.com")
    else:
        smtp.refused["person1@example.com"] = "421 Closing"

    with pytest.raises(mail.Disconnected):
        deliver(at_once=at_once)

    assert were_sent(rows) == [True, False, False, False]
    assert list(AccountMail.objects.mail_due()) == rows[2:]
    # Not in front: whatever is wrong with it, the others go first.
    assert [row.pk for row in AccountMail.objects.unsent().order_by("mail_due_at", "pk")][-1] == rows[1].pk


@pytest.mark.parametrize("at_once", [1, 50])
@pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), OperationalError("The database is away")])
def test_mails_are_recorded_or_given_back_when_their_task_is_cut(error: Exception, at_once: int) -> None:
    rows = make_mails(4)

    def cut(row: AccountMail) -> EmailMultiAlternatives:
        if row == rows[2]:
            raise error
        return emails.account(row)

    with pytest.raises(type(error)):
        deliver(cut, at_once=at_once)

    # What was being sent then may have gone out: it stays claimed until the lease is over.
    assert (were_sent(rows), list(AccountMail.objects.mail_due())) == ([True, True, False, False], [rows[3]])


@pytest.mark.parametrize("at_once", [1, 3])
def test_kill_repeats_no_more_mails_than_are_recorded_at_once(at_once: int) -> None:
    rows, unrecorded = make_mails(7), []

    def message(row: AccountMail) -> EmailMultiAlternatives:
        # With this one, once it has gone out.
        unrecorded.append(len(outbox.outbox) - sum(were_sent(rows)) + 1)
        return emails.account(row)

    count = deliver(message, at_once=at_once)

    assert (count, were_sent(rows), max(unrecorded)) == (7, [True] * 7, at_once)


@pytest.mark.django_db(transaction=True)
def test_claim_mail_leaves_what_another_transaction_holds() -> None:
    rows = make_mails(2)

    with psycopg.connect(connection.connection.info.dsn) as other:
        other.execute("SELECT 1 FROM accounts_accountmail WHERE id = %s FOR UPDATE", [rows[0].pk])
        claimed = AccountMail.objects.claim_mail()

    assert claimed == [rows[1]]


# --- Once ---


def test_mail_twice_is_once() -> None:
    make_mail()

    sent = [deliver() for _ in range(3)]

    assert sent == [1, 0, 0]
    assert len(outbox.outbox) == 1


def test_mail_is_recorded_once_when_two_attempts_have_sent_it() -> None:
    row = make_mail()

    recorded = [AccountMail.objects.mark_mails_sent([row]) for _ in range(2)]

    assert recorded == [1, 0]


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

    assert deliver(first=row.pk) == 0
    assert outbox.outbox == []


def test_claim_mail_holds_it_for_the_lease() -> None:
    row = make_mail()

    with time_machine.travel(timezone.now(), tick=False):
        first, second = (AccountMail.objects.claim_mail(first=row.pk) for _ in range(2))

        assert (first, second) == ([row], [])
        assert due_in(row) == mail.LEASE


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


def test_welcome_leads_to_the_shop_and_repeats_no_name_to_an_unverified_address() -> None:
    user = make_user(name="Win at https://bad.example", email="alice@example.com")

    message = emails.welcome(user)

    html = html_of(message)
    assert message.to == ["alice@example.com"]
    assert "bad.example" not in message.body + html
    assert ("http://localhost:" in message.body, "http://localhost:" in html) == (True, True)


def test_confirmation_lists_the_items_and_the_total() -> None:
    order = place_order(product=make_product(name="Lamp & Co"), quantity=3)

    message = order_emails.confirmation(order)

    assert order.reference in message.subject
    assert "3 x Lamp & Co: €37.50" in message.body
    assert "Total: €37.50" in message.body
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
