"""Mails to a person besides the welcome: mails about the account, and notices."""

from django.db import models
from django.utils import timezone

from durable.mail import MailQuerySet, OwesMail

from .people import User


class AccountMail(OwesMail):
    """A mail about an account, such as an address verification. Rendered at once, since it contains a one-time link."""

    user = models.ForeignKey(
        User, on_delete=models.CASCADE, null=True, blank=True, editable=False, related_name="account_mails"
    )
    to = models.EmailField()
    subject = models.CharField(max_length=200)
    text = models.TextField()
    html = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MailQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.subject} ({self.created_at:%Y-%m-%d %H:%M})"


class Notification(OwesMail):
    """A notice that is mailed to a person; created by `services.notify`."""

    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="notifications")
    subject = models.CharField(max_length=200)
    message = models.TextField()
    url = models.CharField(max_length=500, blank=True, help_text="Where it leads: a path of ours, or a whole address.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MailQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.subject} ({self.created_at:%Y-%m-%d %H:%M})"
