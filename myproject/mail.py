"""Mail that is owed by a row: claimed, sent, recorded, and found by a sweep when that was cut short.

The idea that an outgoing message is a row with a state is pretix's (`base/models/mail.py`).
"""

import logging
import smtplib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Self
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db import models
from django.db.models import Q
from django.template.loader import render_to_string
from django.utils import timezone

from .errors import PermanentError, TemporaryError

log = logging.getLogger(__name__)

# How long one attempt may take before the sweep believes its worker dead; above the task's hard limit.
LEASE = timedelta(minutes=2)


class MailQuerySet(models.QuerySet[Any]):
    def mail_due(self) -> Self:
        """Rows that owe a mail which nobody is sending now."""
        return self.filter(mail_sent_at=None, mail_due_at__lte=timezone.now())


class OwesMail(models.Model):
    """A row that owes its person exactly one mail. `mail_due_at` None: nothing is owed, or it has failed for good."""

    mail_due_at = models.DateTimeField(null=True, blank=True, editable=False)
    mail_sent_at = models.DateTimeField(null=True, blank=True, editable=False)
    mail_error = models.CharField(max_length=300, blank=True, editable=False)

    class Meta:
        abstract = True
        indexes = [
            models.Index(fields=["mail_due_at"], name="%(class)s_mail_due", condition=Q(mail_sent_at=None)),
        ]

    def claim_mail(self) -> bool:
        """Take the mail for one attempt; False when it is sent, not owed, or in another worker's hands."""
        rows = type(self)._default_manager.filter(pk=self.pk, mail_sent_at=None, mail_due_at__lte=timezone.now())
        return bool(rows.update(mail_due_at=timezone.now() + LEASE))

    def release_mail(self) -> None:
        """Give the mail back at once after an attempt that may be repeated."""
        type(self)._default_manager.filter(pk=self.pk, mail_sent_at=None).update(mail_due_at=timezone.now())

    def mark_mail_sent(self, task_id: str = "") -> bool:
        """Record that the mail went out; False when another attempt recorded it first."""
        rows = type(self)._default_manager.filter(pk=self.pk, mail_sent_at=None)
        return bool(rows.update(mail_sent_at=timezone.now(), mail_error=""))

    def mark_mail_failed(self, reason: str) -> None:
        rows = type(self)._default_manager.filter(pk=self.pk, mail_sent_at=None)
        rows.update(mail_due_at=None, mail_error=reason[:300])


def deliver(row: OwesMail, message: Callable[[Any], EmailMultiAlternatives], task_id: str = "") -> bool:
    """Send the mail that the row owes, once; True when this call sent it.

    Raises `TemporaryError` when it is worth another try; a permanent error ends on the row.

    Between the sending and its record a crash repeats the mail; its Message-ID is the same, so that mail
    programs show one.
    """
    if not row.claim_mail():
        log.info("Mail of %s %s: nothing to send", row._meta.model_name, row.pk)
        return False
    try:
        send(message(row))
    except TemporaryError:
        row.release_mail()
        raise
    except PermanentError as error:
        row.mark_mail_failed(str(error))
        log.error("Mail of %s %s failed for good: %s", row._meta.model_name, row.pk, error)
        return False
    row.mark_mail_sent(task_id)
    log.info("Mail of %s %s sent", row._meta.model_name, row.pk)
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


def send(message: EmailMultiAlternatives) -> None:
    """Hand the message to the mail server; map what it answers to our two errors (RFC 5321: 4xx may be repeated)."""
    try:
        message.send()
    except smtplib.SMTPRecipientsRefused as error:
        raise _error(*next(iter(error.recipients.values()))) from error
    except smtplib.SMTPAuthenticationError as error:
        # Our password is wrong, not this mail: it waits until somebody mends the settings.
        raise TemporaryError(f"The mail server refuses our password ({error.smtp_code}).") from error
    except smtplib.SMTPResponseException as error:
        raise _error(error.smtp_code, error.smtp_error) from error
    except OSError as error:
        raise TemporaryError(f"The mail server does not answer: {error}") from error


def _error(code: int, reason: bytes | str) -> TemporaryError | PermanentError:
    text = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
    return (PermanentError if code >= 500 else TemporaryError)(f"{code} {text}")
