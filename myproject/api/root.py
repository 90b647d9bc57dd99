"""The JSON side of the shop, for scripts: the routers of all apps under `/api/v1/`, and a page that describes them."""

from functools import wraps
from importlib.util import find_spec
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from ninja import NinjaAPI
from ninja.openapi.docs import ABS_TPL_PATH, Swagger

from myproject.web.answers import of_status
from myproject.web.pages import View

from . import errors
from .access import Bearer, PerPerson

DESCRIPTION = """
What the pages do, for scripts. Work is accepted with `202` and the address where its status is; the rows are those of
the pages, and so are the rules. Make a token on your profile page and send it as `Authorization: Bearer …`. Amounts are
strings. Whatever goes wrong is `{"error": {"code", "message", "fields"}}`.
"""


class Description(Swagger):
    # Its other one asks a CDN.
    template_cdn = str(ABS_TPL_PATH / "swagger.html")


def make_api() -> NinjaAPI:
    api = NinjaAPI(
        title=f"{settings.SITE_NAME}: API",
        version="1",
        description=DESCRIPTION,
        docs=Description(),
        auth=Bearer(),
        throttle=[PerPerson()],
    )
    errors.handle(api)
    for app in settings.APPS:
        if find_spec(f"{app}.api"):
            api.add_router("", f"{app}.api.router")
    return api


def urls() -> tuple[list[Any], str, str]:
    """Return the routes, open to who has no session, and with answers in JSON also where Django itself gives them."""
    patterns, app_name, namespace = make_api().urls
    for pattern in patterns:
        pattern.callback = spoken(cast(View, pattern.callback))
    return patterns, app_name, namespace


def spoken(view: View) -> View:
    @wraps(view)
    def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        if response.status_code == 405:
            return of_status(405, {"Allow": response.headers.get("Allow", "")})
        return response

    # Django's middleware would lead to the page for logins.
    answered.login_required = False  # type: ignore[attr-defined]
    return answered
