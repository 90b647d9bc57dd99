"""Who asks, and how often they may."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.module_loading import import_string
from ninja.security import HttpBearer
from ninja.throttling import SimpleRateThrottle

from myproject.web import second_factor


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


class PerPerson(SimpleRateThrottle):
    """Counts in the cache that all processes share."""

    def __init__(self) -> None:
        super().__init__(settings.API_RATE)

    def get_cache_key(self, request: HttpRequest) -> str:
        return f"api-rate-{request.user.pk}"
