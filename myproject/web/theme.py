"""How the pages look: as the browser is set, light or dark. A cookie keeps it, and the server writes it into pages."""

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

COOKIE = f"{settings.COOKIE_PREFIX}theme"
YEAR = 365 * 86400
THEMES = {"auto": "Auto", "light": "Light", "dark": "Dark"}


def chosen(request: HttpRequest) -> str:
    theme = request.COOKIES.get(COOKIE, "")
    return theme if theme in THEMES else "auto"


@login_not_required
@require_POST
def choose(request: HttpRequest) -> HttpResponse:
    page = request.POST.get("next", "")
    is_ours = page.startswith("/") and url_has_allowed_host_and_scheme(page, allowed_hosts=None)
    answer = HttpResponseRedirect(page if is_ours else "/")
    theme = request.POST.get("theme", "")
    if theme in THEMES:
        secure = settings.SESSION_COOKIE_SECURE
        answer.set_cookie(COOKIE, theme, max_age=YEAR, secure=secure, httponly=True, samesite="Lax")
    return answer
