"""Flower behind the Django staff login.

Flower may have a host name of its own, which the shop's cookies never reach. So the shop's `/flower/` sends staff there
with a token, for which `StaffLogin`, named in `flowerconfig.py`, gives them a cookie of Flower's own; requests without
a token are redirected to `/flower/`.
"""

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.signing import BadSignature, TimestampSigner
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.cache import cache_control
from flower.views import BaseHandler
from flower.views.auth import get_next_url

from myproject.web.pages import staff_may

# Flower asks the shop again after this: how long it still believes somebody who has logged out.
DAYS_BELIEVED = 1 / 24
FLOWER = "myproject.use_flower"
SIGNER = TimestampSigner(salt="myproject.web.flower")
# On its way the token stands in an address, which a proxy may write down: it is of use for one redirect.
TOKEN_LASTS = timedelta(seconds=30)


# The middleware has checked the second factor already.
@staff_may(FLOWER)
@cache_control(private=True, no_store=True)
def enter(request: HttpRequest) -> HttpResponse:
    query = urlencode({"next": request.GET.get("next", ""), "token": SIGNER.sign(str(request.user.pk))})
    return redirect(f"{settings.FLOWER_URL}/login?{query}")


class StaffLogin(BaseHandler):
    """Let in whom the shop has just sent."""

    async def get(self) -> None:
        user_id = await sync_to_async(_staff_id)(self.get_query_argument("token", ""))
        if user_id is None:
            query = urlencode({"next": self.get_query_argument("next", "")})
            self.redirect(f"{settings.SITE_URL}/flower/?{query}")
            return
        self.set_secure_cookie("user", f"{user_id}@staff", expires_days=DAYS_BELIEVED, secure=settings.HTTPS)
        self.redirect(get_next_url(self))


def _staff_id(token: str) -> int | None:
    """Return whose token it is, or None unless it is of now, and theirs who are active staff and may use Flower."""
    try:
        user_id = SIGNER.unsign(token, max_age=TOKEN_LASTS)
    except BadSignature:
        return None
    close_old_connections()
    person: Any = get_user_model()._default_manager.filter(pk=user_id, is_staff=True, is_active=True).first()
    return person.pk if person and person.has_perm(FLOWER) else None
