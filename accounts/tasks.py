from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from durable import mail
from durable.sweeps import Sweep, sweep
from myproject.storage.clean_ups import CLEAR_LIMITS, delete_in_chunks, going_on_next_night

from . import emails, services
from .models import AccountMail, CrmContact, Notification, User
from .schedules import SCHEDULES

# Mails about accounts contain one-time links, which have expired by then.
MAIL_KEPT = timedelta(days=30)
NOTICES_KEPT = timedelta(days=365)
LIMITS = {"soft_time_limit": 50, "time_limit": 60}
# The CRM's timeouts are 30 seconds to connect and 30 to answer.
CRM_LIMITS = {"soft_time_limit": 75, "time_limit": 90}


@shared_task(**LIMITS, ignore_result=True)
def send_welcome_email(*, user_id: int) -> None:
    """Welcome a new customer. Safe to repeat: the row is claimed, and remembers that it was sent."""
    mail.deliver(User.objects.claim_mail(user_id), emails.welcome)


@shared_task(**LIMITS, ignore_result=True)
def send_account_email(*, mail_id: int) -> None:
    """Send a mail about an account. Safe to repeat: the row is claimed, and remembers that it was sent."""
    mail.deliver(AccountMail.objects.claim_mail(mail_id), emails.account)


@shared_task(**LIMITS, ignore_result=True)
def send_notification_email(*, user_id: int) -> None:
    """Send a person all unsent notices. Safe to repeat: each row is claimed, and remembers that it was sent."""
    owed = Notification.objects.filter(person=user_id).select_related("person")
    mail.deliver(owed.claim_mail(), emails.notification)


@sweep(SCHEDULES["Check unsent mail"])
def check_unsent_mail() -> list[Sweep]:
    """Queue overdue mails again. Safe to repeat: so is each mail."""
    notices = Notification.objects.mail_due().order_by("person").distinct("person")
    return [
        Sweep(User.objects.mail_due().order_by("pk"), send_welcome_email, "user_id", limit=10, at_once=mail.BATCH),
        Sweep(
            AccountMail.objects.mail_due().order_by("pk"), send_account_email, "mail_id", limit=10, at_once=mail.BATCH
        ),
        Sweep(notices, send_notification_email, "user_id", "person_id", limit=50),
    ]


@shared_task(**CRM_LIMITS, ignore_result=True)
def sync_user_to_crm(*, user_id: int) -> None:
    """Send a person, or their erasure, to the CRM. Safe to repeat: the CRM keeps the newest version by our id."""
    services.sync_contact(user_id)


@sweep(SCHEDULES["Check unsynced contacts"])
def check_unsynced_contacts() -> list[Sweep]:
    """Queue overdue contacts again; fail those whose attempts are used up. Safe to repeat: so is each contact."""
    due = CrmContact.objects.due().order_by("due_at")
    give_up = CrmContact.objects.give_up
    return [Sweep(due, sync_user_to_crm, "user_id", give_up=give_up)] if settings.CRM_URL else []


@shared_task(soft_time_limit=240, time_limit=300, ignore_result=True)
def catch_up_with_crm() -> None:
    """Mark contacts that the CRM still lacks for synchronisation. Safe to repeat: so is each contact."""
    # `check_unsynced_contacts` queues them, a hundred a minute, so that a CRM that was down all day is not flooded.
    if settings.CRM_URL:
        services.catch_up_with_crm()


@shared_task(**CLEAR_LIMITS, ignore_result=True)
def clear_old_mail() -> None:
    """Delete mails and notices that were sent, or failed, long ago. Safe to repeat: deletes are idempotent."""
    with going_on_next_night("mail"):
        for mails, kept in ((AccountMail.objects, MAIL_KEPT), (Notification.objects, NOTICES_KEPT)):
            old = mails.mail_ended().filter(created_at__lt=timezone.now() - kept)
            # The oldest rows have the lowest keys, so this needs no extra index.
            delete_in_chunks(old.order_by("pk"))
