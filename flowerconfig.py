"""Flower's settings; `celery -A myproject flower` reads this file by itself."""

from functools import partialmethod

import environ
from django.conf import settings
from flower.views import BaseHandler
from flower.views.monitor import Metrics
from tornado.web import authenticated

from myproject.web.flower import DAYS_BELIEVED

env = environ.Env()

address = env.str("FLOWER_ADDRESS", default="127.0.0.1")
port = settings.FLOWER_PORT

# Staff of the shop may enter; the handler names them "<user id>@staff".
auth_provider = "myproject.web.flower.StaffLogin"
auth = ".*@staff"
# Otherwise a copied cookie is valid for a month, whatever its expiry in the browser.
BaseHandler.get_secure_cookie = partialmethod(BaseHandler.get_signed_cookie, max_age_days=DAYS_BELIEVED)
# The one page with figures that Flower itself shows to everybody; `/healthcheck` says OK and nothing else.
Metrics.get = authenticated(Metrics.get)
cookie_secret = settings.SECRET_KEY
# Watching is for all staff, revoking and shutting down only where somebody switched it on.
read_only = not env.bool("FLOWER_WRITABLE", default=False)

# History survives a restart.
settings.VAR_DIR.mkdir(parents=True, exist_ok=True)
persistent = True
db = str(settings.VAR_DIR / "flower")
