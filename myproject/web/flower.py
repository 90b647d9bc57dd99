"""Flower behind the Django staff login.

Flower may have a host name of its own, which the shop's cookies never reach. So the shop's `/flower/` sends staff there
with a token, for which `StaffLogin`, named in `flowerconfig.py`, gives them a cookie of Flower's own; requests without
a token are redirected to `/flower/`. Both hold a random key, under which the shop has noted the session: at each
request Flower asks whether that session is still open and its person may still use Flower.
"""

import secrets
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.core.cache import cache
from django.core.signing import BadSignature, TimestampSigner
from django.db import Error, close_old_connections
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.module_loading import import_string
from django.views.decorators.cache import cache_control
from flower.views import BaseHandler
from flower.views.auth import get_next_url

from myproject.web.pages import staff_may

# By its name: Flower reads this before there are models.
IS_MISSING = "myproject.web.second_factor.is_missing"
# Flower has the shop note the session anew after this.
BELIEVED = timedelta(hours=1)
DAYS_BELIEVED = BELIEVED / timedelta(days=1)
FLOWER = "myproject.use_flower"
SIGNER = TimestampSigner(salt="myproject.web.flower")
# On its way the token stands in an address, which a proxy may write down: it is of use for one redirect.
TOKEN_LASTS = timedelta(seconds=30)
COOKIE = f"{settings.COOKIE_PREFIX}user"


# The middleware has checked the second factor already.
@staff_may(FLOWER)
@cache_control(private=True, no_store=True)
def enter(request: HttpRequest) -> HttpResponse:
    token = SIGNER.sign(note(str(request.session.session_key)))
    query = urlencode({"next": request.GET.get("next", ""), "token": token})
    return redirect(f"{settings.FLOWER_URL}/login?{query}")


def note(session_key: str) -> str:
    """Note the session under a random key, and return that: what opens the shop itself never comes to Flower's host."""
    key = secrets.token_urlsafe(24)
    cache.set(_noted(key), session_key, timeout=BELIEVED.total_seconds())
    return key


def name_of(key: str) -> str | None:
    """Return the person's name at Flower, None unless their session is open and they may use Flower now."""
    close_old_connections()
    request: Any = HttpRequest()
    try:
        session_key = cache.get(_noted(key))
        request.session = import_string(f"{settings.SESSION_ENGINE}.SessionStore")(session_key)
        request.user = get_user(request)
        is_staff = request.user.is_staff and request.user.has_perm(FLOWER)
        may_enter = is_staff and not import_string(IS_MISSING)(request)
    except Error:
        # Nobody can say so now.
        return None
    return f"{request.user.pk}@staff" if may_enter else None


def forget(key: str) -> None:
    # Without the database nobody is let in, and no page of Flower tells a stranger why.
    with suppress(Error):
        cache.delete(_noted(key))


def _noted(key: str) -> str:
    return f"flower-{key}"


class StaffLogin(BaseHandler):
    """Let in whom the shop has just sent."""

    async def get(self) -> None:
        key = _key_in(self.get_query_argument("token", ""))
        if not key or not await sync_to_async(name_of)(key):
            query = urlencode({"next": self.get_query_argument("next", "")})
            self.redirect(f"{settings.SITE_URL}/flower/?{query}")
            return
        self.set_secure_cookie(COOKIE, key, expires_days=DAYS_BELIEVED, secure=settings.HTTPS)
        self.redirect(get_next_url(self))


def _key_in(token: str) -> str:
    """Return the key, empty unless the token is of now."""
    try:
        return SIGNER.unsign(token, max_age=TOKEN_LASTS)
    except BadSignature:
        return ""


async def identify(handler: BaseHandler, *args: Any) -> None:
    """Before each request, ask the shop who this is."""
    key = _key_of(handler)
    handler.current_user = await sync_to_async(name_of)(key) if key else None


async def leave(handler: BaseHandler) -> None:
    """Answer the button that logs out of Flower, by which also a copy of the cookie ends."""
    if key := _key_of(handler):
        await sync_to_async(forget)(key)
    handler.clear_cookie(COOKIE, secure=settings.HTTPS)
    handler.current_user = None
    handler.render("logout.html")


def _key_of(handler: BaseHandler) -> str:
    """Return the key in a cookie that no other site of the domain can have set, and that is of the last hour.

    Without that a copied cookie is valid for a month, whatever its expiry in the browser.
    """
    return (handler.get_signed_cookie(COOKIE, max_age_days=DAYS_BELIEVED) or b"").decode()
