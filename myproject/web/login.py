"""What stands before every page that does not say that it is open to all."""

from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import resolve_url

from myproject.web.pages import View


class Required(LoginRequiredMiddleware):
    """Django's own, which leads back to where one was going; but the address of a button takes no GET."""

    def handle_no_permission(self, request: HttpRequest, view_func: View) -> HttpResponseRedirect:
        if request.method in {"GET", "HEAD"}:
            return super().handle_no_permission(request, view_func)
        messages.warning(request, "You were signed out, so this was not done. Please sign in and press it again.")
        return redirect_to_login(own_page(request) or resolve_url(settings.LOGIN_REDIRECT_URL))


def own_page(request: HttpRequest) -> str:
    """Return the path of the page with the button; empty if it is none of ours, or no address at all."""
    try:
        page = urlsplit(request.headers.get("Referer", ""))
    except ValueError:
        return ""
    return page.path if page.netloc == request.get_host() else ""
