"""Flower behind the Django staff login.

Cookies do not know ports, so the shop's session cookie reaches Flower as well. `flowerconfig.py` names
`StaffLogin`; it sends whoever is not logged in to the shop's `/flower/`, which sends them back afterwards.
"""

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from flower.views import BaseHandler
from flower.views.auth import get_next_url

from . import second_factor
from .web import staff_only

# Flower asks the shop again after this: how long it still believes somebody who has logged out.
DAYS_BELIEVED = 1 / 24


@staff_only
def enter(request: HttpRequest) -> HttpResponse:
    return redirect(f"{settings.FLOWER_URL}/login")


class StaffLogin(BaseHandler):
    """Let in whose session in the shop is a staff member's."""

    async def get(self) -> None:
        user_id = await sync_to_async(_staff_id)(self.get_cookie(settings.SESSION_COOKIE_NAME))
        if user_id is None:
            self.redirect(f"{settings.SITE_URL}/flower/")
            return
        self.set_secure_cookie("user", f"{user_id}@staff", expires_days=DAYS_BELIEVED, secure=settings.HTTPS)
        self.redirect(get_next_url(self))


def _staff_id(session_key: str | None) -> int | None:
    """Return the id of the active staff member whose session this is, or None. Makes two queries or three."""
    close_old_connections()
    request = HttpRequest()
    request.session = SessionStore(session_key)
    request.user = user = get_user(request)
    return user.pk if user.is_staff and user.is_active and not second_factor.is_missing(request) else None
