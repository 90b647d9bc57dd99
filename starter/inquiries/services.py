"""What is done with inquiries; all of it may be repeated."""

import logging
import time

from django.conf import settings

from durable.mail import MAIL

from .models import Inquiry, Status

log = logging.getLogger(__name__)


def answer(inquiry: Inquiry) -> bool:
    """Do the work of a claimed inquiry; False when another worker has taken it over."""
    # Put your slow work here, with no transaction open. What it changes elsewhere needs an idempotency key.
    time.sleep(settings.INQUIRY_SECONDS)
    text = f"Your question has {len(inquiry.text.split())} words."
    done = inquiry.finish(status=Status.ANSWERED, answer=text, **MAIL.fresh())
    log.info("Inquiry %s: %s", inquiry.pk, "answered" if done else "taken over by another worker")
    return done


def give_up() -> None:
    """End what has used up its attempts, for a person to look at."""
    for pk in Inquiry.objects.exhausted().finish(status=Status.FAILED):
        log.error("Inquiry %s failed for good", pk)
