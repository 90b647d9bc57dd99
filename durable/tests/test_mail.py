"""A mail is a row with a lease: sent once, put off with a reason, or ended with one."""

import pytest
from django.core import mail as outbox
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.utils import timezone

from durable import mail
from durable.errors import PermanentError, TemporaryError
from durable.tests.jobs.models import Letter

pytestmark = pytest.mark.django_db


def letters(count: int) -> list[Letter]:
    return [Letter.objects.create(mail_due_at=timezone.now()) for _ in range(count)]


def message(row: Letter) -> EmailMultiAlternatives:
    return EmailMultiAlternatives("Hello", "Text", to=[row.to])


def deliver() -> int:
    return mail.deliver(Letter.objects.claim_mail(), message)


def test_mail_is_sent_once() -> None:
    letters(3)

    assert [deliver(), deliver(), len(outbox.outbox)] == [3, 0, 3]
    assert not Letter.objects.unsent().exists()


def test_mail_of_a_worker_that_died_is_sent_when_its_lease_is_over() -> None:
    letters(1)
    Letter.objects.claim_mail()

    early = deliver()
    Letter.objects.update(mail_due_at=timezone.now())

    assert (early, deliver()) == (0, 1)


def test_frozen_sender_that_was_overtaken_records_nothing() -> None:
    letters(1)
    frozen = Letter.objects.claim_mail()
    Letter.objects.update(mail_due_at=timezone.now())
    Letter.objects.claim_mail()

    assert Letter.objects.mark_mails_sent(frozen) == 0
    frozen[0].put_off_mail("late")
    frozen[0].mark_mail_failed("late")
    assert Letter.objects.values_list("mail_sent_at", "mail_error").get() == (None, "")


@pytest.mark.parametrize(
    ("error", "is_owed"), [(TemporaryError("Busy."), True), (PermanentError("No such address."), False)]
)
def test_one_bad_mail_ends_with_its_reason_and_the_others_go_out(
    error: Exception, is_owed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, *others = letters(3)

    def send(message: EmailMessage, connection: object, real: object = mail.send) -> None:
        if message.to == ["bad@example.com"]:
            raise error
        real(message, connection)  # type: ignore[operator]

    monkeypatch.setattr(mail, "send", send)
    Letter.objects.filter(pk=bad.pk).update(to="bad@example.com")

    assert deliver() == len(others)
    bad.refresh_from_db()
    assert (bad.mail_error, bad.mail_due_at is not None) == (str(error), is_owed)


def test_one_mail_that_cannot_be_written_waits_and_the_others_go_out() -> None:
    bad, *others = letters(3)

    def write(row: Letter) -> EmailMultiAlternatives:
        if row == bad:
            raise LookupError("no slug")
        return message(row)

    assert mail.deliver(Letter.objects.claim_mail(), write) == len(others)
    bad.refresh_from_db()
    assert (bad.mail_error, bad.mail_due_at is not None) == ("The mail could not be written: LookupError.", True)
