"""A mail outbox: a row owes a mail, a worker claims, sends and records it, and a sweep finds what was interrupted.

The idea that an outgoing message is a row with a state is pretix's (`base/models/mail.py`).
"""

import logging
import re
import smtplib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self, cast

from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db import DatabaseError, models
from django.db.models import Q
from django.utils import timezone

from . import trace
from .errors import PermanentError, ReasonField, TemporaryError, readable
from .leases import HasLease, Lease, LeasedQuerySet

log = logging.getLogger(__name__)

# An e-mail address.
ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,255}")
# How long one attempt may take before the sweep considers its worker dead; above the task's hard limit.
LEASE = timedelta(minutes=2)
# What a round trip to it is called where it is shown.
SERVER = "Mail server"
# "Service not available, closing transmission channel."
HANGS_UP = 421
# Mails sent in one attempt: enough to make the connection cheap, few enough for the task's time limit.
BATCH = 50
# The longest backoff of a mail that was not accepted, and how long it is retried; mail servers give up after as long.
PAUSE = timedelta(minutes=10)
TRIED_FOR = timedelta(days=3)


class Disconnected(TemporaryError):
    """The mail server is unreachable, has hung up or accepts nothing now: the other mails need not be tried."""


# A mail is due at once, since one message sends many.
MAIL = Lease(
    open=Q(mail_sent_at=None, mail_due_at__isnull=False), lasts=lambda: LEASE, prefix="mail_", message_first=False
)


class MailQuerySet(LeasedQuerySet[Any]):
    def mail_due(self) -> Self:
        """Rows that owe a mail that no worker is sending."""
        return self.due(MAIL)

    def mail_failed(self) -> Self:
        """Rows whose mail has failed, and is sent only if staff requeue it."""
        return self.filter(mail_sent_at=None, mail_due_at=None).exclude(mail_error="")

    def mail_ended(self) -> Self:
        """Rows whose mail was sent or has failed."""
        return self.exclude(MAIL.open)

    def unsent(self) -> Self:
        """Rows that owe a mail, whether a worker is sending it now or not."""
        return self.filter(MAIL.open)

    def claim_mail(self, first: object = None, limit: int = BATCH) -> list[Any]:
        """Claim the mail of row `first` and other due ones for one attempt; return the rows."""
        rows = self.claim(first=None if first is None else self.filter(pk=first), limit=limit, lease=MAIL)
        if not rows:
            log.info("Mail of %s %s: nothing to send", self.model._meta.model_name, first or "")
        return rows

    def mark_mails_sent(self, rows: Iterable[models.Model]) -> int:
        """Record that the mails of these claimed rows went out; return how many are recorded by it."""
        return self.held(rows, MAIL).update(mail_sent_at=timezone.now(), mail_error="", mail_claimed_by="")


class OwesMail(HasLease):
    """A row that owes its person exactly one mail. `mail_due_at` is None if nothing is owed, or the mail has failed."""

    mail_due_at = models.DateTimeField(null=True, blank=True, editable=False)
    mail_claimed_by = models.CharField(max_length=80, blank=True, default="", db_default="", editable=False)
    mail_sent_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Why the last attempt failed; empty once the mail is sent.
    mail_error = ReasonField(max_length=300, blank=True, editable=False)
    # Since when the mail is owed: a field that no attempt moves, as each moves `mail_due_at`.
    owed_since = "created_at"
    lease = MAIL

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
        """Additional keys of log lines about the mail."""
        return {}

    @property
    def owed_for(self) -> timedelta:
        return timezone.now() - getattr(self, self.owed_since)

    def put_off_mail(self, reason: str) -> None:
        """Leave the mail to a later attempt, with exponential backoff. The first attempt never fails it permanently:
        it may follow an outage longer than `TRIED_FOR`, or a request of staff.
        """
        if self.mail_error and self.owed_for > TRIED_FOR:
            self.mark_mail_failed(reason)
            return
        pause = min(PAUSE, max(timedelta(seconds=1), self.owed_for))
        self.held(MAIL).update(**MAIL.until(pause), mail_error=reason)
        log.warning("Mail of %s %s waits: %s", self._meta.model_name, self.pk, reason, extra=self.log_keys)

    def mark_mail_failed(self, reason: str) -> None:
        self.held(MAIL).update(**MAIL.ended(), mail_error=reason)
        # The row has the reason, which may quote a name.
        log.error("Mail of %s %s failed permanently", self._meta.model_name, self.pk, extra=self.log_keys)

    def mark_mail_due(self) -> bool:
        """Queue a failed mail again; False if it has not failed."""
        failed = _table(self).mail_failed().filter(pk=self.pk)
        return bool(failed.update(**MAIL.fresh(), mail_error=""))


def _table(row: OwesMail) -> MailQuerySet:
    return cast(MailQuerySet, type(row)._default_manager.all())


Message = Callable[[Any], EmailMultiAlternatives]


def deliver(rows: Sequence[OwesMail], message: Message, *, at_once: int = 1) -> int:
    """Send the mails of these claimed rows of one table over one connection; return how many were sent.

    A bad mail does not affect the others: its row records why it waits or has failed. Raises `Disconnected` when the
    server accepts nothing; then, and at a time limit, the unsent rest is released.

    After a crash, at most `at_once` mails that were sent and not recorded are sent again, with the same Message-ID, so
    that mail programs can show them once.
    """
    left, sent, count = deque(rows), list[OwesMail](), 0
    if not left:
        return count
    try:
        with connected() as connection:
            while left:
                # If interrupted from here on, the mail may have been sent: it stays claimed until the lease is over.
                row = left.popleft()
                if _went_out(row, message, connection):
                    sent.append(row)
                if len(sent) == at_once:
                    count, sent = count + _record(sent), []
    finally:
        count += _record(sent)
        # Mails that were claimed and not tried are due again at once.
        _table(rows[0]).held(left, MAIL).update(**MAIL.until(timedelta(0)))
    return count


def _went_out(row: OwesMail, message: Message, connection: BaseEmailBackend) -> bool:
    """Send one mail; False if it was not accepted, with the reason on its row. Raises `Disconnected`."""
    try:
        with _going_on(row, "written"):
            written = message(row)
        with _going_on(row, "sent"), trace.call(SERVER, row):
            send(written, connection)
    except TemporaryError as error:
        row.put_off_mail(str(error))
        if isinstance(error, Disconnected):
            raise
        return False
    except PermanentError as error:
        row.mark_mail_failed(str(error))
        return False
    return True


@contextmanager
def _going_on(row: OwesMail, done: str) -> Iterator[None]:
    """Raise `TemporaryError` for a fault of ours: the others go on, and this one once it is mended."""
    try:
        yield
    except (TemporaryError, PermanentError, DatabaseError, SoftTimeLimitExceeded):
        raise
    except Exception as error:
        log.exception("Mail of %s %s cannot be %s", row._meta.model_name, row.pk, done, extra=row.log_keys)
        raise TemporaryError(f"The mail could not be {done}: {type(error).__name__}.") from error


def _record(sent: Sequence[OwesMail]) -> int:
    count: int = _table(sent[0]).mark_mails_sent(sent) if sent else 0
    for row in sent:
        log.info("Mail of %s %s sent", row._meta.model_name, row.pk, extra=row.log_keys)
    return count


@contextmanager
def connected() -> Iterator[BaseEmailBackend]:
    """Keep one connection to the mail server open. Raises `Disconnected` when it cannot be opened."""
    connection = get_connection()
    try:
        connection.open()
    except smtplib.SMTPAuthenticationError as error:
        # Our password is wrong: all mail waits until the settings are fixed.
        raise Disconnected(f"The mail server refuses our password ({error.smtp_code}).") from error
    except OSError as error:
        raise Disconnected(f"The mail server does not answer: {error}") from error
    try:
        yield connection
    finally:
        connection.close()


def send(message: EmailMultiAlternatives, connection: BaseEmailBackend) -> None:
    """Send the message; map the server's answer to our errors (RFC 5321: 4xx may be retried).

    A plain `TemporaryError` is about this recipient; answers to other commands mostly concern all mail.
    """
    try:
        connection.send_messages([message])
    except smtplib.SMTPRecipientsRefused as error:
        raise _error(*next(iter(error.recipients.values())), TemporaryError) from error
    except smtplib.SMTPResponseException as error:
        raise _error(error.smtp_code, error.smtp_error) from error
    except OSError as error:
        raise Disconnected(f"The mail server does not answer: {error}") from error
    # Of an address or a header that can be none.
    except ValueError as error:
        raise PermanentError(str(error)) from error


def _error(
    code: int, reason: bytes | str, later: type[TemporaryError] = Disconnected
) -> TemporaryError | PermanentError:
    # It may quote the address, and ends up in logs and results.
    text = ADDRESS.sub("…", readable(reason.decode(errors="replace") if isinstance(reason, bytes) else reason))
    if code >= 500:
        return PermanentError(f"{code} {text}")
    return (Disconnected if code == HANGS_UP else later)(f"{code} {text}")
