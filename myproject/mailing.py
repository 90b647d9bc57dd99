"""Mail to many: a set that was claimed is sent over one connection, and recorded part by part instead of one by one."""

import logging
import smtplib
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend
from django.db import models
from django.utils import timezone

from .errors import PermanentError, TemporaryError
from .mail import Disconnected, Message, OwesMail, connected, send

log = logging.getLogger(__name__)

# How long one mail stands back when its recipient cannot take it now, while the others go on.
PAUSE = timedelta(minutes=10)
# Mails recorded in one statement: a machine that loses power repeats at most so many, each with the Message-ID it had.
RECORDED_AT_ONCE = 50


def deliver_claimed(rows: Sequence[OwesMail], message: Message) -> int:
    """Send what these rows of one table owe, which the caller has claimed; return how many were sent.

    A recipient whom the server refuses does not stop the others. Raises `TemporaryError` when the server itself goes
    no further; then, and when a time limit ends it, what was not sent is given back.
    """
    left, sent = deque(rows), 0
    if not left:
        return sent
    try:
        with connected() as connection:
            while left:
                sent += _deliver_some(left, message, connection)
    finally:
        if left:
            _unsent(left).update(mail_due_at=timezone.now())
    return sent


def _deliver_some(left: deque[OwesMail], message: Message, connection: BaseEmailBackend) -> int:
    """Send the next mails and record them together; whatever is settled is taken away from `left`."""
    sent: list[OwesMail] = []
    try:
        while left and len(sent) < RECORDED_AT_ONCE:
            if _send_one(left[0], message, connection):
                sent.append(left[0])
            left.popleft()
    finally:
        if sent:
            _unsent(sent).update(mail_sent_at=timezone.now(), mail_error="")
    log.info("%s mails sent, %s to go", len(sent), len(left))
    return len(sent)


def _send_one(row: OwesMail, message: Message, connection: BaseEmailBackend) -> bool:
    """Send one mail; False when its row says why it did not go. Raises `TemporaryError` when none would."""
    try:
        send(message(row), connection)
    except TemporaryError as error:
        if isinstance(error, Disconnected) or not isinstance(error.__cause__, smtplib.SMTPRecipientsRefused):
            raise
        _unsent([row]).update(mail_due_at=timezone.now() + PAUSE, mail_error=str(error)[:300])
        return False
    # A ValueError is an address, or a header, that no mail can have.
    except (PermanentError, ValueError) as error:
        row.mark_mail_failed(str(error))
        # The row has the reason, which may quote a name.
        log.error("Mail of %s %s failed for good: %s", row._meta.model_name, row.pk, type(error).__name__)
        return False
    return True


def _unsent(rows: Sequence[OwesMail]) -> models.QuerySet[Any]:
    """Return those of the rows, at least one, that no other attempt has recorded."""
    return type(rows[0])._default_manager.filter(pk__in=[row.pk for row in rows], mail_sent_at=None)
