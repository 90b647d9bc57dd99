from urllib.parse import urljoin

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.urls import reverse

from myproject.web import mails

from .models import AccountMail, Erasure, Notification, User


def welcome(user: User) -> EmailMultiAlternatives:
    context = {"user": user, "url": settings.SITE_URL + reverse("orders:catalogue")}
    return mails.render("accounts/email/welcome", user.email, f"welcome-{user.pk}", context)


def account(row: AccountMail) -> EmailMultiAlternatives:
    message = EmailMultiAlternatives(row.subject, row.text, to=[row.to])
    if row.html:
        message.attach_alternative(row.html, "text/html")
    message.extra_headers["Message-ID"] = mails.message_id(f"account-{row.pk}")
    return message


def notification(row: Notification) -> EmailMultiAlternatives:
    context = {"notification": row, "url": urljoin(settings.SITE_URL, row.url) if row.url else ""}
    return mails.render("accounts/email/notification", row.person.email, f"notification-{row.pk}", context)


def farewell(row: Erasure) -> EmailMultiAlternatives:
    # Without the name: whether the address was verified is forgotten by now.
    return mails.render("accounts/email/farewell", row.email, f"farewell-{row.user_id}", {})
