from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.signals import email_changed
from allauth.core import context as allauth
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db import transaction
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils import timezone

from .models import AccountMail, User
from .services import want_crm_sync
from .tasks import send_account_email, send_welcome_email, sync_user_to_crm


class AccountAdapter(DefaultAccountAdapter):
    """django-allauth, with its mails sent by a worker: no page waits for a mail server, or fails with it."""

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        user.name = form.cleaned_data.get("name", "")
        user.wants_digest = form.cleaned_data.get("wants_digest", False)
        user.mail_due_at = timezone.now()
        with transaction.atomic():
            super().save_user(request, user, form, commit)
            if commit:
                send_welcome_email.delay_on_commit(user_id=user.pk)
                tell_crm(user)
        return user

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        site = {"site_name": settings.SITE_NAME, "site_url": settings.SITE_URL}
        context = {"request": allauth.request, "email": email, **site, **context}
        message = self.render_mail(template_prefix, email, context)
        row = AccountMail.objects.create(
            to=email,
            subject=message.subject,
            text=message.body,
            html=_html(message),
            mail_due_at=timezone.now(),
        )
        send_account_email.delay_on_commit(mail_id=row.pk)


@receiver(email_changed)
def tell_crm(user: User, **kwargs: Any) -> None:
    """Have the CRM told of the person, after the commit."""
    if want_crm_sync(user):
        sync_user_to_crm.delay_on_commit(user_id=user.pk)


def _html(message: Any) -> str:
    alternatives = message.alternatives if isinstance(message, EmailMultiAlternatives) else []
    return next((str(content) for content, mimetype in alternatives if mimetype == "text/html"), "")
