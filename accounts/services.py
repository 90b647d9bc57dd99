"""Operations on people that involve several rows or the outside world."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.backends import ModelBackend
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import Exists, Model, OuterRef, Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.utils import timezone

from durable import mail
from durable.errors import TemporaryError, readable, readable_lines
from myproject import http

from . import crm
from .models import AccountMail, ApiToken, CrmContact, CrmContactQuerySet, Erasure, Notification, User
from .unsubscribe import MailingList

log = logging.getLogger(__name__)

# Rows changed in one statement: locks stay short, and memory does not grow with the table.
CHUNK = 5_000
MOST_TOKENS = 20
# The longest pause before a retry: `retry_backoff_max`.
MAX_PAUSE = timedelta(minutes=10)


class TooMany(Exception):
    """The person has as many tokens as one may have."""


# --- Mail ---


def notify(person: User, subject: str, message: str, url: str = "") -> Notification:
    """Create a notice in the caller's transaction; `tasks.send_notification_email` sends it after the commit.

    The `url` is a path of ours or a full URL. A notice has no unsubscribe link: the person requested it.
    """
    subject, message = readable(subject)[:200], readable_lines(message)
    return Notification.objects.create(
        person=person, subject=subject, message=message, url=url, mail_due_at=timezone.now()
    )


def staff_with(permission: str) -> QuerySet[User]:
    """Return the active staff who have the permission: by themselves, by a group, or as administrators."""
    return ModelBackend().with_perm(permission).filter(is_staff=True)


def unsubscribe(person_id: int, mailing: MailingList) -> None:
    """Unsubscribe the person from that list; no effect if they have left the list or deleted the account."""
    count = User.objects.filter(pk=person_id, **{mailing.field: True}).update(**{mailing.field: False})
    log.info("Person %s %s %s", person_id, "has left" if count else "had left", mailing.title)


# --- Scripts ---


def person_of_token(secret: str) -> User | None:
    return ApiToken.objects.person_of(secret)


@transaction.atomic
def make_token(person: User, name: str) -> str:
    """Create a token for the person's scripts; return its secret, which nothing can show again. Raises `TooMany`."""
    User.objects.select_for_update(no_key=True).get(pk=person.pk, is_active=True)
    if person.api_tokens.count() >= MOST_TOKENS:
        raise TooMany(f"You have {MOST_TOKENS} tokens. Please revoke one that you do not use.")
    log.info("Person %s has made a token", person.pk)
    return ApiToken.objects.make(person, name)


def revoke_token(person: User, pk: int) -> bool:
    """Delete the token; False if the person has no such token."""
    revoked, _ = person.api_tokens.filter(pk=pk).delete()
    if revoked:
        log.info("Person %s has revoked a token", person.pk)
    return bool(revoked)


# --- The CRM ---


def want_crm_sync(user: User) -> bool:
    """Mark the person for synchronisation with the CRM after this transaction; False if no CRM is configured."""
    _contacts(user).want()
    return bool(settings.CRM_URL)


@transaction.atomic
def change_profile(person: User, **fields: Any) -> bool:
    """Write these fields only, and only while the account exists; True if the CRM must be updated."""
    changed = User.objects.filter(pk=person.pk, deleted_at=None).update(**fields)
    return bool(changed) and want_crm_sync(person)


def want_crm_erasure(user: User) -> bool:
    """Have the CRM erase the person; False if no CRM is configured."""
    _contacts(user).want(is_erased=True)
    return bool(settings.CRM_URL)


def sync_contact(external_id: int) -> None:
    """Send the person's data, or their erasure, to the CRM; a refusal is recorded on the row.

    Raises `TemporaryError` when a retry makes sense.
    """
    claimed = CrmContact.objects.claim(first=CrmContact.objects.filter(pk=external_id)) if settings.CRM_URL else []
    # One statement reads person and version: older data must not be sent as a newer version.
    contact = CrmContact.objects.select_related("user").held(claimed).first()
    if contact is None:
        log.info("Contact %s: nothing to synchronise", external_id)
        return
    try:
        _send(contact)
    except TemporaryError as error:
        contact.mark_delayed(str(error), min(timedelta(seconds=error.retry_after or 0), MAX_PAUSE))
        raise
    except crm.AccessDenied as error:
        contact.mark_failed(str(error))
        log.error("Contact %s: the CRM refuses our token", external_id)
    except http.Refused as error:
        # The reason may repeat personal data: it is kept on the row only.
        contact.mark_refused(str(error))
        log.error("Contact %s: the CRM refuses it with %s", external_id, error.status)
    else:
        log.info("Contact %s is %s", external_id, "synchronised" if contact.mark_synced() else "told, and has changed")


def _send(contact: CrmContact) -> None:
    if contact.user is None or contact.is_erased:
        crm.delete_contact(contact.pk, contact.wanted_at)
    else:
        crm.put_contact(contact.user, contact.wanted_at)


def catch_up_with_crm() -> int:
    """Mark contacts that the CRM should know, or have erased, and does not; return how many."""
    gone = CrmContact.objects.filter(user=None, is_erased=False)
    total = _add_missing_contacts() + _want_in_chunks(gone, is_erased=True)
    total += _want_in_chunks(CrmContact.objects.gave_up())
    log.info("%s contacts are to be synchronised again", total)
    return total


def _add_missing_contacts() -> int:
    """Add contacts of people who did not register themselves, or who registered before there was a CRM."""
    total = last = 0
    missing = User.objects.filter(is_active=True, crm_contact=None).order_by("pk").values_list("pk", flat=True)
    while chunk := list(missing.filter(pk__gt=last)[:CHUNK]):
        contacts = [CrmContact(external_id=pk, user_id=pk) for pk in chunk]
        CrmContact.objects.bulk_create(contacts, ignore_conflicts=True)
        total, last = total + len(chunk), chunk[-1]
    return total


def _want_in_chunks(contacts: CrmContactQuerySet, **fields: bool) -> int:
    total = 0
    while chunk := list(contacts.order_by("pk").values_list("pk", flat=True)[:CHUNK]):
        total += CrmContact.objects.filter(pk__in=chunk).want(**fields)
    return total


def _contacts(user: User) -> CrmContactQuerySet:
    """Return a queryset of the person's contact, which is created if missing."""
    CrmContact.objects.bulk_create([CrmContact(external_id=user.pk, user=user)], ignore_conflicts=True)
    return CrmContact.objects.filter(pk=user.pk)


# --- Deletion of an account: its orders stay, without a name ---


def is_last_administrator(person: User) -> bool:
    """Return whether this person is the only administrator; reliable only under `hold_administrators`."""
    return list(User.objects.administrators().values_list("pk", flat=True)) == [person.pk]


def hold_administrators() -> None:
    """Lock all administrators until this transaction ends.

    Call it before locking any other person: two people who leave at once would deadlock.
    """
    list(User.objects.administrators().select_for_update().order_by("pk").values_list("pk"))


@transaction.atomic
def anonymise(person: User) -> bool:
    """Close the account and record what is still to be erased; False if that was done before."""
    known = User.objects.select_for_update().get(pk=person.pk)
    if not known.mark_deleted():
        return False
    Erasure.objects.create(user=known, email=known.email, name=known.name, mail_due_at=timezone.now())
    # They contain one-time links. Rows from before mails had a foreign key to the person are found by the address.
    AccountMail.objects.filter(Q(user=known) | Q(user=None, to__iexact=known.email)).delete()
    EmailAddress.objects.filter(user=known).delete()
    ApiToken.objects.filter(person=known).delete()
    Authenticator.objects.filter(user=known).delete()
    Notification.objects.filter(person=known).delete()
    want_crm_erasure(known)
    known.groups.clear()
    known.user_permissions.clear()
    log.info("Account %s is deleted", known.pk)
    return True


def forget(erasure: Erasure) -> None:
    """Remove the person's sessions, and names and addresses from the admin's history."""
    delete_sessions(erasure.user_id)
    _history_of(User).filter(object_id=str(erasure.user_id)).update(object_repr=erasure.user.alias)
    # Deleted addresses cannot be attributed to a person, so all such entries are anonymised.
    there = EmailAddress.objects.annotate(key=Cast("pk", TextField())).filter(key=OuterRef("object_id"))
    _history_of(EmailAddress).exclude(Exists(there)).update(object_repr="deleted address")


def _history_of(model: type[Model]) -> QuerySet[LogEntry]:
    return LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(model))


def delete_sessions(user_id: int) -> None:
    """Delete the person's sessions; reads all sessions in constant memory."""
    own = [session.pk for session in all_sessions() if session.get_decoded().get(SESSION_KEY) == str(user_id)]
    Session.objects.filter(pk__in=own).delete()


def all_sessions() -> Iterator[Session]:
    """Yield all sessions in key order, without a cursor, which would fetch all of them at once behind PgBouncer."""
    chunk = list(Session.objects.order_by("pk")[:1000])
    while chunk:
        yield from chunk
        chunk = list(Session.objects.filter(pk__gt=chunk[-1].pk).order_by("pk")[:1000])


def finish(erasure: Erasure) -> bool:
    """Erase name and address once the last mail was sent or has failed; False while it is still owed."""
    settled = Q() if erasure.is_given_up else ~mail.MAIL.open
    finished = Erasure.objects.filter(settled, pk=erasure.pk).delete()[0]
    log.info("Account %s is %s", erasure.user_id, "erased" if finished else "still owed its last mail")
    return bool(finished)
