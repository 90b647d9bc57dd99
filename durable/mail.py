"""Mail that is owed by a row: claimed, sent, recorded, and found by a sweep when that was cut short.

The idea that an outgoing message is a row with a state is pretix's (`base/models/mail.py`).
"""

import logging
import re
import smtplib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db import models, transaction
from django.db.models import Q
from django.template.loader import render_to_string
from django.utils import timezone

from durable.errors import PermanentError, TemporaryError

log = logging.getLogger(__name__)

# An e-mail address.
ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,255}")
# How long one attempt may take before the sweep believes its worker dead; above the task's hard limit.
LEASE = timedelta(minutes=2)
# "Service not available, closing transmission channel."
HANGS_UP = 421
# Mails that one attempt takes along: enough to make the connection cheap, few enough for its task's time limit.
SET = 50
# The longest that a mail stands back which could not be taken, and for how long it is tried: servers give up then, too.
PAUSE = timedelta(minutes=10)
TRIED_FOR = timedelta(days=3)


class Disconnected(TemporaryError):
    """The mail server cannot be reached, has hung up or takes nothing now: the others need not be tried."""


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

    def unsent(self) -> Self:
        """Rows that owe a mail, whether somebody is sending it now or not."""
        return self.filter(mail_sent_at=None, mail_due_at__isnull=False)

    def claim_mail(self, first: object = None, limit: int = SET) -> list[Any]:
        """Take the mail of row `first`, and others that are due, for one attempt; return the rows."""
        lease = {"mail_due_at": timezone.now() + LEASE}
        with transaction.atomic():
            ids = [first] if first is not None and self.filter(pk=first).mail_due().update(**lease) else []
            free = self.mail_due().select_for_update(skip_locked=True, of=("self",)).order_by("mail_due_at", "pk")
            ids += free.values_list("pk", flat=True)[: limit - len(ids)]
            self.model._base_manager.filter(pk__in=ids).update(**lease)
        if not ids:
            log.info("Mail of %s %s: nothing to send", self.model._meta.model_name, first or "")
        return sorted(self.filter(pk__in=ids), key=lambda row: ids.index(row.pk))

    def mark_mails_sent(self, ids: Iterable[object], task_id: str = "") -> int:
        """Record that these mails went out; return how many no other attempt recorded first."""
        return self.filter(pk__in=ids, mail_sent_at=None).update(mail_sent_at=timezone.now(), mail_error="")

    def release_mail(self, ids: Iterable[object]) -> None:
        """Give these mails back at once, which were claimed and not tried, unless they are no longer owed."""
        self.unsent().filter(pk__in=ids).update(mail_due_at=timezone.now())


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

    @property
    def owed_for(self) -> timedelta:
        return timezone.now() - getattr(self, self.owed_since)

    def put_off(self, reason: str) -> None:
        """Leave the mail to a later attempt, each after twice the time; the first one never ends it.

        That may be at the end of an outage that was longer than `TRIED_FOR`, or be the one that staff asked for.
        """
        if self.mail_error and self.owed_for > TRIED_FOR:
            self.mark_mail_failed(reason)
            return
        pause = min(PAUSE, max(timedelta(seconds=1), self.owed_for))
        self._unsent().update(mail_due_at=timezone.now() + pause, mail_error=reason[:300])
        log.warning("Mail of %s %s waits: %s", self._meta.model_name, self.pk, reason, extra=self.log_keys)

    def mark_mail_failed(self, reason: str) -> None:
        self._unsent().update(mail_due_at=None, mail_error=reason[:300])
        # The row has the reason, which may quote a name.
        log.error("Mail of %s %s failed for good", self._meta.model_name, self.pk, extra=self.log_keys)

    def mark_mail_due(self) -> bool:
        """Owe a mail that has failed once more; False when it has not failed."""
        failed = _table(self).mail_failed().filter(pk=self.pk)
        return bool(failed.update(mail_due_at=timezone.now(), mail_error=""))

    def _unsent(self) -> MailQuerySet:
        return _table(self).unsent().filter(pk=self.pk)


def _table(row: OwesMail) -> MailQuerySet:
    return cast(MailQuerySet, type(row)._default_manager.all())


Message = Callable[[Any], EmailMultiAlternatives]


def deliver(rows: Sequence[OwesMail], message: Message, *, task_id: str = "", at_once: int = 1) -> int:
    """Send what these claimed rows of one table owe, over one connection; return how many were sent.

    One bad mail harms no other: its row says why it waits, or has failed. Raises `Disconnected` when the server takes
    nothing now; then, and when a limit strikes, the rest is given back.

    A crash repeats what was sent and not recorded, `at_once` mails at most, each with the Message-ID it had, so that
    mail programs show one.
    """
    left, sent, count = deque(rows), list[OwesMail](), 0
    if not left:
        return count
    try:
        with connected() as connection:
            while left:
                # Cut from here on, it may have gone out: it stays claimed until the lease is over.
                row = left.popleft()
                if _went_out(row, message, connection):
                    sent.append(row)
                if len(sent) == at_once:
                    count, sent = count + _record(sent, task_id), []
    finally:
        count += _record(sent, task_id)
        _table(rows[0]).release_mail([row.pk for row in left])
    return count


def _went_out(row: OwesMail, message: Message, connection: BaseEmailBackend) -> bool:
    """Send one mail; False when its row says why it did not go. Raises `Disconnected` when no other would."""
    try:
        send(message(row), connection)
    except TemporaryError as error:
        row.put_off(str(error))
        if isinstance(error, Disconnected):
            raise
        return False
    # Django refuses an address or a header that cannot be written by a ValueError.
    except (PermanentError, ValueError) as error:
        row.mark_mail_failed(str(error))
        return False
    return True


def _record(sent: Sequence[OwesMail], task_id: str) -> int:
    count: int = _table(sent[0]).mark_mails_sent([row.pk for row in sent], task_id) if sent else 0
    for row in sent:
        log.info("Mail of %s %s sent", row._meta.model_name, row.pk, extra=row.log_keys)
    return count


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
    """Hand the message to the mail server; map what it answers to our errors (RFC 5321: 4xx may be repeated).

    A plain `TemporaryError` is about this recipient; what a server answers elsewhere, it mostly answers to all.
    """
    try:
        connection.send_messages([message])
    except smtplib.SMTPRecipientsRefused as error:
        raise _error(*next(iter(error.recipients.values())), TemporaryError) from error
    except smtplib.SMTPResponseException as error:
        raise _error(error.smtp_code, error.smtp_error) from error
    except OSError as error:
        raise Disconnected(f"The mail server does not answer: {error}") from error


def _error(
    code: int, reason: bytes | str, later: type[TemporaryError] = Disconnected
) -> TemporaryError | PermanentError:
    # It may quote the address, and goes on to logs and results.
    text = ADDRESS.sub("…", reason.decode(errors="replace") if isinstance(reason, bytes) else reason)
    if code >= 500:
        return PermanentError(f"{code} {text}")
    return (Disconnected if code == HANGS_UP else later)(f"{code} {text}")
