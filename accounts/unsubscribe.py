"""Links by which a person leaves a list of mails without logging in; signed, and good for as long as the key is."""

from typing import NamedTuple

from django.conf import settings
from django.core.signing import BadSignature, Signer
from django.urls import reverse

from .models import User

signer = Signer(salt="accounts.unsubscribe")


class MailingList(NamedTuple):
    """A kind of mail that a person chooses; `field` of `User` says whether."""

    field: str
    title: str


LISTS = {"digest": MailingList("wants_digest", "the weekly digest")}


class BrokenLink(Exception):
    """The link was cut off, changed or made up, or its list is no more."""


def url(person: User, name: str) -> str:
    """Return the address that takes the person off that list; makes no query."""
    token = signer.sign_object([person.pk, name])
    return settings.SITE_URL + reverse("accounts:unsubscribe", args=[token])


def read(token: str) -> tuple[int, MailingList]:
    """Return whose link it is, and for which list. Raises `BrokenLink`."""
    try:
        person_id, name = signer.unsign_object(token)
        return person_id, LISTS[name]
    except (BadSignature, KeyError) as error:
        raise BrokenLink from error
