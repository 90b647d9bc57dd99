"""What staff needs beside a password, where `STAFF_SECOND_FACTOR` says so: a code of an authenticator app."""

from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authenticator_added, authenticator_used
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, resolve_url
from django.urls import reverse
from django_htmx.http import HttpResponseClientRefresh

from myproject.web.pages import View

SESSION_KEY = "second_factor_of"
# What is open before the second factor was shown. To show it:
TO_SHOW_IT = {"account_login", "account_logout", "mfa_authenticate", "mfa_reauthenticate"}
# To set it up. Closed to those who have one: it could be replaced with the password alone.
TO_SET_IT_UP = TO_SHOW_IT | {
    "account_confirm_email",
    "account_email",
    "account_email_verification_sent",
    "account_reauthenticate",
    "mfa_activate_totp",
    "mfa_index",
}


@receiver(authenticator_added)
@receiver(authenticator_used)
def remember(request: HttpRequest, user: AbstractBaseUser, **kwargs: Any) -> None:
    request.session[SESSION_KEY] = user.pk


def has_one(user: Any) -> bool:
    """Whether the person has set up an app. Makes a query."""
    return is_mfa_enabled(user, [Authenticator.Type.TOTP])


def is_wanted_of(user: Any) -> bool:
    return bool(settings.STAFF_SECOND_FACTOR and user.is_authenticated and user.is_staff)


def is_missing(request: HttpRequest) -> bool:
    """Whether this is staff who has not shown the second factor in this session. Makes a query, for staff only."""
    user: Any = request.user
    if not is_wanted_of(user):
        return False
    return request.session.get(SESSION_KEY) != user.pk or not has_one(user)


class Required:
    """Middleware: keep staff without it from all pages that need a login, so that no view can forget to ask."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: View, *args: Any) -> HttpResponseBase | None:
        if not getattr(view, "login_required", True) or not is_missing(request):
            return None
        # With its namespace: the admin's pages of these models have names that begin alike.
        name = request.resolver_match.view_name if request.resolver_match else None
        has_app = has_one(request.user)
        if name in (TO_SHOW_IT if has_app else TO_SET_IT_UP):
            return None
        # A part of a page that asks by itself must not show another page within: the whole page asks instead.
        return HttpResponseClientRefresh() if getattr(request, "htmx", False) else redirect(way_in(request, has_app))


def way_in(request: HttpRequest, has_app: bool) -> str:
    if has_app:
        query = QueryDict(mutable=True)
        query["next"] = request.get_full_path() if request.method == "GET" else resolve_url(settings.LOGIN_REDIRECT_URL)
        return f"{reverse('mfa_reauthenticate')}?{query.urlencode()}"
    messages.warning(request, "Staff signs in with a second factor. Please set one up to go on.")
    return reverse("mfa_activate_totp")


def enter_admin(request: HttpRequest) -> HttpResponse:
    """Sign in to the admin on the shop's own page, which knows limits and second factors."""
    if request.user.is_authenticated:
        raise PermissionDenied
    return redirect_to_login(request.GET.get("next") or reverse("admin:index"))


# Reached without a login.
enter_admin.login_required = False  # type: ignore[attr-defined]
