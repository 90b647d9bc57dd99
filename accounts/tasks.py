from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from durable import mail
from durable.task import Task
from myproject.storage.clean_ups import CLEAR_LIMITS, delete_in_chunks, going_on_next_night

from . import emails, services
from .models import AccountMail, CrmContact, Notification, User
from .schedules import SCHEDULES

# Mails about accounts hold one-time links, which open nothing any more by then.
MAIL_KEPT = timedelta(days=30)
NOTICES_KEPT = timedelta(days=365)
LIMITS = {"soft_time_limit": 50, "time_limit": 60}
# What a sweep queues is little, and dropped when the sweep itself would be, before the next one: a mail server, a CRM
# or a worker that is away must not fill the broker.
SWEPT_MAIL_EXPIRE = SCHEDULES["Check unsent mail"].expires
SWEPT_CONTACTS, SWEPT_CONTACTS_EXPIRE = 100, SCHEDULES["Check unsynced contacts"].expires
# The CRM may take 30 seconds to be reached and 30 to answer.
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
    """Send a person all notices that are owed. Safe to repeat: each row is claimed, and remembers that it was sent."""
    owed = Notification.objects.filter(person=user_id).select_related("person")
    mail.deliver(owed.claim_mail(), emails.notification)


@shared_task(ignore_result=True)
def check_unsent_mail() -> None:
    """Queue again what was never sent. Safe to repeat: so is each mail."""
    # Each takes the others of its set along.
    for user_id in User.objects.mail_due().order_by("pk").values_list("pk", flat=True)[: 500 : mail.SET]:
        send_welcome_email.apply_async(kwargs={"user_id": user_id}, expires=SWEPT_MAIL_EXPIRE)
    for mail_id in AccountMail.objects.mail_due().order_by("pk").values_list("pk", flat=True)[: 500 : mail.SET]:
        send_account_email.apply_async(kwargs={"mail_id": mail_id}, expires=SWEPT_MAIL_EXPIRE)
    people = Notification.objects.mail_due().order_by("person").values_list("person", flat=True).distinct()
    for user_id in people[: mail.SET]:
        send_notification_email.apply_async(kwargs={"user_id": user_id}, expires=SWEPT_MAIL_EXPIRE)


@shared_task(bind=True, **CRM_LIMITS, ignore_result=True)
def sync_user_to_crm(self: Task, *, user_id: int) -> None:
    """Tell the CRM of a person, or to forget them. Safe to repeat: it knows our id, and keeps the newest version."""
    services.sync_contact(user_id, self.request.id)


@shared_task(ignore_result=True)
def check_unsynced_contacts() -> None:
    """Queue again what the CRM was never told. Safe to repeat: so is each contact."""
    if settings.CRM_URL:
        for pk in CrmContact.objects.due().order_by("due_at").values_list("pk", flat=True)[:SWEPT_CONTACTS]:
            sync_user_to_crm.apply_async(kwargs={"user_id": pk}, expires=SWEPT_CONTACTS_EXPIRE)


@shared_task(soft_time_limit=240, time_limit=300, ignore_result=True)
def catch_up_with_crm() -> None:
    """Want again what the CRM still does not know. Safe to repeat: each chunk is taken out of what is behind."""
    # `check_unsynced_contacts` queues it, a hundred a minute: a CRM that was down all day is not flooded.
    if settings.CRM_URL:
        services.catch_up_with_crm()


@shared_task(**CLEAR_LIMITS, ignore_result=True)
def clear_old_mail() -> None:
    """Delete mails and notices that were sent, or failed, long ago. Safe to repeat: what is gone is gone."""
    with going_on_next_night("mail"):
        for mails, kept in ((AccountMail.objects, MAIL_KEPT), (Notification.objects, NOTICES_KEPT)):
            old = mails.mail_ended().filter(created_at__lt=timezone.now() - kept)
            # The oldest have the lowest keys, so that this needs no index which each new mail would pay for.
            delete_in_chunks(old.order_by("pk"))
