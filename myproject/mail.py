"""Mail that is owed by a row: claimed, sent, recorded, and found by a sweep when that was cut short.

The idea that an outgoing message is a row with a state is pretix's (`base/models/mail.py`).
"""

import logging
import smtplib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db import models, transaction
from django.db.models import Q
from django.template.loader import render_to_string
from django.utils import timezone

from .errors import PermanentError, TemporaryError
from .logs import scrub

log = logging.getLogger(__name__)

# How long one attempt may take before the sweep believes its worker dead; above the task's hard limit.
LEASE = timedelta(minutes=2)
# "Service not available, closing transmission channel."
HANGS_UP = 421


# Mails that one attempt takes along: enough to make the connection cheap, few enough for its task's time limit.
SET = 50


class Disconnected(TemporaryError):
    """The mail server cannot be reached or has hung up: no mail of the set is to blame."""


class MailQuerySet(models.QuerySet[Any]):
    def mail_due(self) -> Self:
        """Rows that owe a mail which nobody is sending now."""
        return self.filter(mail_sent_at=None, mail_due_at__lte=timezone.now())

    def mail_failed(self) -> Self:
        """Rows whose mail will not be sent, unless staff has it sent again."""
        return self.filter(mail_sent_at=None, mail_due_at=None).exclude(mail_error="")

    def mail_ended(self) -> Self:
        """Rows that owe no mail any more: it was sent, or will not be."""
        return self.filter(Q(mail_sent_at__isnull=False) | Q(mail_due_at=None))

    def claim_mail(self, first: object = None, limit: int = SET) -> list[Any]:
        """Take the mail of row `first`, and others that are due, for one attempt; return the rows.

        Others are taken along only once: what the server has put off comes back with its own task, or the sweep.
        """
        lease = {"mail_due_at": timezone.now() + LEASE}
        with transaction.atomic():
            ids = [first] if first is not None and self.filter(pk=first).mail_due().update(**lease) else []
            others = self.mail_due() if first is None else self.mail_due().filter(mail_error="")
            free = others.select_for_update(skip_locked=True, of=("self",)).order_by("mail_due_at", "pk")
            ids += free.values_list("pk", flat=True)[: limit - len(ids)]
            self.model._base_manager.filter(pk__in=ids).update(**lease)
        return sorted(self.filter(pk__in=ids), key=lambda row: ids.index(row.pk))


class OwesMail(models.Model):
    """A row that owes its person exactly one mail. `mail_due_at` None: nothing is owed, or it has failed for good."""

    mail_due_at = models.DateTimeField(null=True, blank=True, editable=False)
    mail_sent_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Why the last attempt failed; empty once the mail is sent.
    mail_error = models.CharField(max_length=300, blank=True, editable=False)
    # Since when the mail is owed: a field that no attempt moves, as each moves `mail_due_at`.
    owed_since = "created_at"

    class Meta:
        abstract = True
        indexes = [
            models.Index(fields=["mail_due_at"], name="%(class)s_mail_due", condition=Q(mail_sent_at=None)),
        ]

    @property
    def mail_failed(self) -> bool:
        return bool(self.mail_error) and self.mail_due_at is None

    @property
    def log_keys(self) -> dict[str, str]:
        """What a line of the log about the mail says beside its text."""
        return {}

    def release_mail(self, reason: str = "") -> None:
        """Give the mail back at once after an attempt that may be repeated, unless it is no longer owed."""
        self._unsent().filter(mail_due_at__isnull=False).update(mail_due_at=timezone.now(), mail_error=reason[:300])

    def mark_mail_sent(self, task_id: str = "") -> bool:
        """Record that the mail went out; False when another attempt recorded it first."""
        return bool(self._unsent().update(mail_sent_at=timezone.now(), mail_error=""))

    def mark_mail_failed(self, reason: str) -> None:
        self._unsent().update(mail_due_at=None, mail_error=reason[:300])

    def mark_mail_due(self) -> bool:
        """Owe a mail that has failed once more; False when it has not failed."""
        rows: Any = type(self)._default_manager.filter(pk=self.pk)
        return bool(rows.mail_failed().update(mail_due_at=timezone.now(), mail_error=""))

    def _unsent(self) -> models.QuerySet[Any]:
        return type(self)._default_manager.filter(pk=self.pk, mail_sent_at=None)


Message = Callable[[Any], EmailMultiAlternatives]


def deliver(row: OwesMail, message: Message, task_id: str = "") -> bool:
    """Send the mail that the row owes, once; True when this call sent it. It is a set of one."""
    rows: Any = type(row)._default_manager.all()
    return bool(deliver_all(rows, message, first=row.pk, limit=1, task_id=task_id))


def deliver_all(
    rows: MailQuerySet, message: Message, *, first: object = None, limit: int = SET, task_id: str = ""
) -> int:
    """Send the mail of row `first`, and others of `rows` that are due, over one connection; return how many.

    A permanent error ends on its row. Raises `TemporaryError`, after all others were tried, when one is worth
    another try, and at once when the mail server has gone.

    Between the sending and its record a crash repeats the mail; its Message-ID is the same, so that mail
    programs show one.
    """
    waiting = rows.claim_mail(first, limit)
    if not waiting:
        log.info("Mail of %s %s: nothing to send", rows.model._meta.model_name, first or "")
        return 0
    outcomes: list[bool | TemporaryError] = []
    try:
        with connected() as connection:
            while waiting:
                outcomes.append(_attempt(waiting.pop(0), message, connection, task_id))
    finally:
        for row in waiting:
            row.release_mail()
    for outcome in outcomes:
        if isinstance(outcome, TemporaryError):
            raise outcome
    return outcomes.count(True)


def _attempt(row: OwesMail, message: Message, connection: BaseEmailBackend, task_id: str) -> bool | TemporaryError:
    """Send one mail of a set; True when it went out, False when it never will."""
    try:
        send(message(row), connection)
    except TemporaryError as error:
        row.release_mail(str(error))
        log.warning("Mail of %s %s waits: %s", row._meta.model_name, row.pk, error, extra=row.log_keys)
        if isinstance(error, Disconnected):
            raise
        return error
    # Django refuses an address or a header that cannot be written by a ValueError.
    except (PermanentError, ValueError) as error:
        row.mark_mail_failed(str(error))
        # The row has the reason, which may quote a name.
        log.error(
            "Mail of %s %s failed for good: %s", row._meta.model_name, row.pk, type(error).__name__, extra=row.log_keys
        )
        return False
    row.mark_mail_sent(task_id)
    log.info("Mail of %s %s sent", row._meta.model_name, row.pk, extra=row.log_keys)
    return True


def render(
    template: str, to: str, name: str, context: Mapping[str, Any], unsubscribe: str = ""
) -> EmailMultiAlternatives:
    """Build a message from `template`_subject.txt, .txt and .html; `name` is the same for each attempt.

    With the address `unsubscribe` mail programs show a button that leaves the list at once; `_email.html` links to
    it, and so must the text.
    """
    fixed = {"site_name": settings.SITE_NAME, "site_url": settings.SITE_URL, "unsubscribe": unsubscribe}
    context = {**fixed, **context}
    subject = " ".join(render_to_string(f"{template}_subject.txt", context).split())
    message = EmailMultiAlternatives(subject, render_to_string(f"{template}.txt", context), to=[to])
    message.attach_alternative(render_to_string(f"{template}.html", context), "text/html")
    message.extra_headers["Message-ID"] = message_id(name)
    if unsubscribe:
        # RFC 8058: the program posts the second header's value to the first one's address.
        message.extra_headers["List-Unsubscribe"] = f"<{unsubscribe}>"
        message.extra_headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return message


def message_id(name: str) -> str:
    """Return the Message-ID of the mail of that name, the same for each attempt."""
    return f"<{name}@{urlsplit(settings.SITE_URL).hostname}>"


@contextmanager
def connected() -> Iterator[BaseEmailBackend]:
    """Keep one connection to the mail server open. What fails in opening it is no mail's fault: `Disconnected`."""
    connection = get_connection()
    try:
        connection.open()
    except smtplib.SMTPAuthenticationError as error:
        # Our password is wrong: all mail waits until somebody mends the settings.
        raise Disconnected(f"The mail server refuses our password ({error.smtp_code}).") from error
    except OSError as error:
        raise Disconnected(f"The mail server does not answer: {error}") from error
    try:
        yield connection
    finally:
        connection.close()


def send(message: EmailMultiAlternatives, connection: BaseEmailBackend) -> None:
    """Hand the message to the mail server; map what it answers to our errors (RFC 5321: 4xx may be repeated)."""
    try:
        connection.send_messages([message])
    except smtplib.SMTPRecipientsRefused as error:
        raise _error(*next(iter(error.recipients.values()))) from error
    except smtplib.SMTPResponseException as error:
        raise _error(error.smtp_code, error.smtp_error) from error
    except OSError as error:
        raise Disconnected(f"The mail server does not answer: {error}") from error


def _error(code: int, reason: bytes | str) -> TemporaryError | PermanentError:
    # It may quote the address, and goes on to logs and results.
    text = scrub(reason.decode(errors="replace") if isinstance(reason, bytes) else reason)
    if code == HANGS_UP:
        return Disconnected(f"{code} {text}")
    return (PermanentError if code >= 500 else TemporaryError)(f"{code} {text}")
