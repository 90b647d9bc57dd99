"""How a mail of the shop is written: three templates, a Message-ID of its own, and a way to leave its list."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string


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
