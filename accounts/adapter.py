from contextlib import suppress
from datetime import timedelta
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from allauth.account.signals import email_changed
from allauth.core import context as allauth
from django.conf import settings
from django.contrib import messages
from django.core.mail import EmailMultiAlternatives
from django.db import IntegrityError, connection, transaction
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils import timezone

from myproject.texts import clean_address

from .models import AccountMail, User
from .services import want_crm_sync
from .tasks import send_account_email, send_welcome_email, sync_user_to_crm

# Mails of forms that anybody may press twice, and within how many seconds one of them is enough.
ONCE = {
    f"account/email/{name}"
    for name in ("password_reset_key", "unknown_account", "password_changed", "password_reset", "password_set")
}
ENOUGH = timedelta(seconds=10)


class AccountAdapter(DefaultAccountAdapter):
    """django-allauth, with its mails sent by a worker: no page waits for the mail server or fails with it."""

    # Its own says "later".
    error_messages = DefaultAccountAdapter.error_messages | {
        "too_many_login_attempts": "Too many attempts. Please try again in five minutes, or reset your password."
    }

    def clean_email(self, email: str) -> str:
        User._meta.get_field("email").run_validators(email)
        return clean_address(email)

    def is_safe_url(self, url: str) -> bool:
        try:
            return bool(super().is_safe_url(url))
        except ValueError:
            # It is no address, such as `https://[`.
            return False

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        user.name = form.cleaned_data.get("name", "")
        user.wants_digest = form.cleaned_data.get("wants_digest", False)
        user.mail_due_at = timezone.now()
        with transaction.atomic():
            super().save_user(request, user, form, commit)
            if commit:
                send_welcome_email.delay_on_commit(user_id=user.pk)
                queue_crm_sync(user)
        return user

    def set_password(self, user: User, password: str) -> None:
        """Write the password only: hashing takes its time, and allauth would write back the whole row of before."""
        user.set_password(password)
        with transaction.atomic():
            User.objects.filter(pk=user.pk, deleted_at=None).update(password=user.password)
            user.end_access()

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        site = {"site_name": settings.SITE_NAME, "site_url": settings.SITE_URL}
        context = {"request": allauth.request, "email": email, **site, **context}
        message = self.render_mail(template_prefix, email, context)
        with transaction.atomic():
            if template_prefix in ONCE and was_just_sent(email, message.subject):
                return
            row = AccountMail.objects.create(
                user=context.get("user"),
                to=email,
                subject=message.subject,
                text=message.body,
                html=_html(message),
                mail_due_at=timezone.now(),
            )
            send_account_email.delay_on_commit(mail_id=row.pk)

    def send_notification_mail(
        self, template_prefix: str, user: User, context: dict[str, Any] | None = None, email: str | None = None
    ) -> None:
        super().send_notification_mail(template_prefix, user, {"user": user, **(context or {})}, email)

    def can_delete_email(self, email_address: EmailAddress) -> bool:
        # allauth would switch to the new address before it is verified.
        is_current = email_address.email.lower() == email_address.user.email.lower()
        return not is_current and bool(super().can_delete_email(email_address))

    def confirm_email(self, request: HttpRequest, email_address: EmailAddress) -> bool:
        """Verify the address and assign it to the person.

        False if it was registered by someone else meanwhile, or if the account was switched off: its next password link
        would go there.
        """
        if email_address.user.is_active:
            with suppress(IntegrityError), transaction.atomic():
                return bool(super().confirm_email(request, email_address))
        failed = "account/messages/email_confirmation_failed.txt"
        self.add_message(request, messages.ERROR, failed, {"email": email_address.email})
        return False


@receiver(email_changed)
def queue_crm_sync(user: User, **kwargs: Any) -> None:
    """Queue a sync of the person with the CRM, after the commit."""
    if want_crm_sync(user):
        sync_user_to_crm.delay_on_commit(user_id=user.pk)


def was_just_sent(email: str, subject: str) -> bool:
    """Whether the same form was sent twice; who asks at the same moment waits for this transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [email.lower()])
    sent = AccountMail.objects.filter(to__iexact=email, subject=subject, created_at__gt=timezone.now() - ENOUGH)
    return sent.exists()


def _html(message: Any) -> str:
    alternatives = message.alternatives if isinstance(message, EmailMultiAlternatives) else []
    return next((str(content) for content, mimetype in alternatives if mimetype == "text/html"), "")
