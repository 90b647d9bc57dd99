"""Flower's settings; `celery -A myproject flower` reads this file by itself."""

from logging import ERROR, getLogger

import environ
from django.conf import settings
from flower.api import BaseApiHandler
from flower.views import BaseHandler
from flower.views.auth import LogoutHandler
from flower.views.monitor import Metrics
from tornado.web import RequestHandler, authenticated

from myproject.web.flower import identify, leave

env = environ.Env()

address = env.str("FLOWER_ADDRESS", default="127.0.0.1")
port = settings.FLOWER_PORT

# Staff of the shop may enter, and are named "<user id>@staff".
auth_provider = "myproject.web.flower.StaffLogin"
auth = ".*@staff"
BaseHandler.prepare = BaseApiHandler.prepare = identify
# Nobody, where no one was asked: a cookie alone says nothing.
BaseHandler.get_current_user = RequestHandler.get_current_user
LogoutHandler.get = leave
# The one page with figures that Flower itself shows to everybody; `/healthcheck` says OK and nothing else.
Metrics.get = authenticated(Metrics.get)
cookie_secret = settings.SECRET_KEY
# Watching is for all staff, revoking and shutting down only where somebody switched it on.
read_only = not env.bool("FLOWER_WRITABLE", default=False)

# As it starts it asks workers that are starting, too, and warns of each question; its page shows who answers.
getLogger("flower.inspector").setLevel(ERROR)

# History survives a restart.
settings.VAR_DIR.mkdir(parents=True, exist_ok=True)
persistent = True
db = str(settings.VAR_DIR / "flower")
