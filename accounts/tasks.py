from celery import shared_task

from myproject import mail

from . import emails
from .models import AccountMail, Notification, User

LIMITS = {"soft_time_limit": 50, "time_limit": 60}


@shared_task(**LIMITS, ignore_result=True)
def send_welcome_email(*, user_id: int) -> None:
    """Welcome a new customer. Safe to repeat: the row is claimed, and remembers that it was sent."""
    mail.deliver_all(User.objects.all(), emails.welcome, first=user_id)


@shared_task(**LIMITS, ignore_result=True)
def send_account_email(*, mail_id: int) -> None:
    """Send a mail about an account. Safe to repeat: the row is claimed, and remembers that it was sent."""
    mail.deliver_all(AccountMail.objects.all(), emails.account, first=mail_id)


@shared_task(**LIMITS, ignore_result=True)
def send_notification_email(*, user_id: int) -> None:
    """Send a person all notices that are owed. Safe to repeat: each row is claimed, and remembers that it was sent."""
    mail.deliver_all(Notification.objects.filter(person=user_id).select_related("person"), emails.notification)


@shared_task(ignore_result=True)
def check_unsent_mail() -> None:
    """Queue again what was never sent. Safe to repeat: so is each mail."""
    for user_id in User.objects.mail_due().order_by("pk").values_list("pk", flat=True)[:500]:
        send_welcome_email.delay(user_id=user_id)
    for mail_id in AccountMail.objects.mail_due().order_by("pk").values_list("pk", flat=True)[:500]:
        send_account_email.delay(mail_id=mail_id)
    people = Notification.objects.mail_due().order_by("person").values_list("person", flat=True).distinct()
    for user_id in people[:500]:
        send_notification_email.delay(user_id=user_id)
