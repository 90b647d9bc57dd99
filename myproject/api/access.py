"""Who asks, and how often they may."""

import time
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.http import HttpRequest
from django.utils.module_loading import import_string
from ninja.security import HttpBearer
from ninja.throttling import BaseThrottle

from myproject.web import second_factor
from myproject.web.once import hold

# Of the units of `API_RATE`.
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Bearer(HttpBearer):
    """A token of the person's; `API_IDENTIFIES_BY` names the function that knows whose it is."""

    def authenticate(self, request: HttpRequest, token: str) -> Any:
        person = import_string(settings.API_IDENTIFIES_BY)(token)
        # A token that a customer made is none of staff's: nobody has shown a second factor for it.
        if not person or (second_factor.is_wanted_of(person) and not second_factor.has_one(person)):
            return None
        # The same rules then decide as on pages. A session, if there is one as well, counts for nothing.
        request.user = person
        return person


class PerPerson(BaseThrottle):
    """Counts in the cache that all processes share, and one request of a person after the other.

    Ninja's own keeps whom it counts on itself, where two threads mix them up.
    """

    def __init__(self) -> None:
        most, _, unit = settings.API_RATE.partition("/")
        self.most, self.seconds = int(most), SECONDS[unit]
        self.until: ContextVar[float] = ContextVar("until", default=0)

    def allow_request(self, request: HttpRequest) -> bool:
        key, now = f"api-rate-{request.user.pk}", time.time()
        with transaction.atomic():
            hold(int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), signed=True))
            recent = [at for at in cache.get(key, []) if at > now - self.seconds]
            if len(recent) < self.most:
                cache.set(key, [now, *recent], timeout=self.seconds)
                return True
        self.until.set(recent[self.most - 1] + self.seconds)
        return False

    def wait(self) -> float:
        """Return for how many seconds the request that was just refused should wait."""
        return max(1.0, self.until.get() - time.time())
