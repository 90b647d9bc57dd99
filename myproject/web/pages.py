import logging
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.messages.storage.session import SessionStorage
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DataError, IntegrityError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.utils.encoding import iri_to_uri
from django.views.decorators.http import require_safe
from django.views.defaults import bad_request

from myproject.traces.readers import may_look
from myproject.web import theme
from myproject.web.answers import is_for_script, of_status

log = logging.getLogger(__name__)

View = Callable[..., HttpResponseBase]


# What the shop never asks a browser for; other sites may show none of its files.
HEADERS = {
    "Permissions-Policy": ", ".join(
        f"{feature}=()"
        for feature in ("camera", "geolocation", "microphone", "payment", "usb", "browsing-topics", "display-capture")
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
}

COMPRESSED = {"text/html", "application/json", "image/svg+xml"}


def links(request: HttpRequest) -> dict[str, Any]:
    """Template context of every page: the addresses of what runs beside the shop."""
    return {
        "site_name": settings.SITE_NAME,
        "sandbox_url": settings.SANDBOX_URL,
        # Asked only by pages that have such a part.
        "shows_behind": lambda: may_look(request),
        "live_url": settings.LIVE_URL,
        "theme": theme.chosen(request),
        "themes": theme.THEMES,
    }


@login_not_required
@require_safe
def favicon(request: HttpRequest) -> HttpResponseBase:
    """For programs that ask for it by this name without having read a page."""
    return redirect(static("favicon.ico"))


def add_headers(get_response: View) -> View:
    """Middleware: add to each answer what Django has no setting for."""

    def headed(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.COOKIES or response.cookies or "Authorization" in request.headers:
            # A session, a basket, a theme, a token: no proxy may keep it, nor the browser of a machine that others use.
            response.headers.setdefault("Cache-Control", "private, no-store")
        return response

    return headed


class Compression(GZipMiddleware):
    """Middleware: compress text, padded at random against BREACH as Django does it.

    Not a page that shows a secret: a view says so by `no-transform`, and those of the second factor are known by name.
    Not files, of which a client may ask for a part.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        name = request.resolver_match.view_name if request.resolver_match else ""
        is_secret = "no-transform" in response.headers.get("Cache-Control", "") or name.startswith("mfa_")
        if response.streaming or kind not in COMPRESSED or is_secret:
            return response
        return super().process_response(request, response)


def link_to_site_url(get_response: View) -> View:
    """Middleware: let absolute links begin with SITE_URL, since the Host header is the visitor's to choose."""

    def linked(request: HttpRequest) -> HttpResponseBase:
        def absolute(location: str | None = None) -> str:
            page = settings.SITE_URL + request.path
            return str(iri_to_uri(urljoin(page, request.get_full_path() if location is None else str(location))))

        # On the request, since django-allauth and Django itself ask it by this name.
        request.build_absolute_uri = absolute  # type: ignore[method-assign]
        return get_response(request)

    return linked


class MessagesCookie(CookieStorage):
    cookie_name = f"{settings.COOKIE_PREFIX}messages"


class Messages(FallbackStorage):
    """Django's own, with the same prefix as the other cookies."""

    storage_classes = (MessagesCookie, SessionStorage)


def refuse_huge_requests(get_response: View) -> View:
    """Middleware: answer 413 to a body that no form of the shop takes, before it fills the disk."""

    def checked(request: HttpRequest) -> HttpResponseBase:
        length = request.META.get("CONTENT_LENGTH") or ""
        if length.isdecimal() and int(length) > settings.REQUEST_MAX_BYTES:
            if is_for_script(request):
                return of_status(413)
            return HttpResponse(render_to_string("413.html", {"limit": settings.REQUEST_MAX_BYTES}), status=413)
        return get_response(request)

    return checked


def error(status: int) -> Callable[..., HttpResponse]:
    """Return a view that needs nothing of what may have failed: neither session nor database nor context processors."""

    def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if is_for_script(request):
            return of_status(status)
        return HttpResponse(render_to_string(f"{int(status)}.html"), status=status)

    return view


def show_own_not_found(get_response: View) -> View:
    """Middleware: answer 404 in development as anywhere else; Django's page lists addresses instead."""

    def shown(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        is_found = not settings.DEBUG or response.status_code != HTTPStatus.NOT_FOUND
        # One of ours, such as that of a broken link in a mail, says more.
        is_own = is_found or b"<code>DEBUG = True</code>" not in getattr(response, "content", b"")
        return response if is_own else error(HTTPStatus.NOT_FOUND)(request)

    return shown


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    return HttpResponse(render_to_string("403_csrf.html"), status=403)


def too_many_requests(request: HttpRequest) -> HttpResponse:
    """Answer 429 after too many attempts."""
    # All limits that end here count one minute; what has a longer one says so in its form.
    return HttpResponse(render_to_string("429.html"), status=429, headers={"Retry-After": "60"})


def staff_may(permission: str, post: str = "") -> Callable[[View], View]:
    """Answer 403 to all but staff with this permission of Django's; and for `post`, with that one as well."""

    def guard(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            needed = [permission, post] if post and request.method == "POST" else [permission]
            if not (request.user.is_staff and request.user.has_perms(needed)):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return checked

    return guard


# What is raised where two requests write the same. Beat's rows say so by validating themselves when they are saved.
MET = (IntegrityError, ValidationError)


class DatabaseRefusals:
    """Middleware: what the database refuses is no fault of ours where two requests met, or one cannot be read."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        if isinstance(error, MET):
            return run_again(request)
        if isinstance(error, DataError):
            # A NUL, or a number or a date that no column holds.
            log.warning("The database could not read a request", exc_info=error)
            return bad_request(request, error)
        return None


def run_again(request: HttpRequest) -> HttpResponseBase | None:
    """Answer a form that was sent twice at once: the slower one now finds what the other has written."""
    log.info("Two requests wrote the same; one of them is run again")
    for _, files in request.FILES.lists():
        for file in files:
            file.seek(0)
    found = request.resolver_match
    try:
        return found.func(request, *found.args, **found.kwargs) if found else None
    except MET:
        # Then it was something else, and a fault.
        return None
