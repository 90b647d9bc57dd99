from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase

View = Callable[..., HttpResponseBase]


def links(request: HttpRequest) -> dict[str, Any]:
    """Template context of every page: the addresses of what runs beside the shop."""
    return {
        "site_name": settings.SITE_NAME,
        "sandbox_url": settings.SANDBOX_URL,
        "basket_count": sum(request.session.get("basket", {}).values()),
    }


def staff_only(view: View) -> View:
    """Answer 403 to whoever is logged in but not staff."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_staff:
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return checked
