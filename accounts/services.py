import logging

from django.utils import timezone

from .models import Notification, User
from .unsubscribe import MailingList

log = logging.getLogger(__name__)


def notify(person: User, subject: str, message: str, url: str = "") -> Notification:
    """Owe the person a notice, in the caller's transaction; `tasks.send_notification_email` sends it after the commit.

    The `url` is a path of ours or a whole address. A notice has no unsubscribe: it tells what the person asked for.
    """
    return Notification.objects.create(
        person=person, subject=subject[:200], message=message, url=url, mail_due_at=timezone.now()
    )


def unsubscribe(person_id: int, mailing: MailingList) -> None:
    """Take the person off that list; of no effect where they left it, or us, before."""
    count = User.objects.filter(pk=person_id, **{mailing.field: True}).update(**{mailing.field: False})
    log.info("Person %s %s %s", person_id, "has left" if count else "had left", mailing.title)
