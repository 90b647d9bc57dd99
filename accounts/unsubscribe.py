"""Signed unsubscribe links, which need no login and are valid as long as the key is."""

from typing import NamedTuple

from django.conf import settings
from django.core.signing import BadSignature, Signer
from django.urls import reverse

from .models import User

signer = Signer(salt="accounts.unsubscribe")


class MailingList(NamedTuple):
    """A kind of mail that a person can choose; `field` is the boolean field of `User`."""

    field: str
    title: str


LISTS = {"digest": MailingList("wants_digest", "the weekly digest")}


class BrokenLink(Exception):
    """The link was truncated or forged, or its list no longer exists."""


def url(person: User, name: str) -> str:
    """Return the person's unsubscribe link for that list; makes no query."""
    token = signer.sign_object([person.pk, name])
    return settings.SITE_URL + reverse("accounts:unsubscribe", args=[token])


def read(token: str) -> tuple[int, MailingList]:
    """Return the person and the list of the link. Raises `BrokenLink`."""
    try:
        person_id, name = signer.unsign_object(token)
        return person_id, LISTS[name]
    except (BadSignature, KeyError) as error:
        raise BrokenLink from error
