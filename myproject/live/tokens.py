"""Who may listen to what: each live part of a page carries a signed token.

The view has decided that the person may see the page, so its template may also let them know when it changes. A token
is short-lived, since that decision is; a page that asks again gets a new one.
"""

import time
from typing import NamedTuple

from django.core import signing

SALT = "live"
# Longer than a page waits until it asks again, and than a reader's laptop needs to connect anew.
SECONDS = 600


class Token(NamedTuple):
    person: str
    channel: str
    # Seconds since 1970, with their fraction: a page that follows a sign-in at once must have its stream.
    made_at: float


def channel_of(*parts: object) -> str:
    """Return the name of a channel; one with fewer parts has all the news of those that begin like it."""
    return ":".join(map(str, parts))


def sign(person: object, *parts: object) -> str:
    return signing.dumps(Token(str(person), channel_of(*parts), time.time()), salt=SALT)


def read(token: str) -> Token:
    """Raise `BadSignature` if the token is not ours, or too old."""
    return Token(*signing.loads(token, salt=SALT, max_age=SECONDS))
