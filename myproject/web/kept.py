"""HTML that is the same for many visitors: made once, and kept in the process for the next of them.

The database is asked each time. A piece is kept under all that it can show, so there is nothing to invalidate.
"""

from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal
from secrets import token_hex
from typing import Any

from django.conf import settings
from django.contrib.messages import get_messages
from django.core.paginator import Page
from django.core.signals import setting_changed
from django.db.models import Model
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, QueryDict
from django.middleware.csrf import get_token
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from django.utils.translation import get_language

from myproject.web import theme

# Takes the place of a visitor's CSRF token; random, so that no name of a product can hold it.
TOKEN = token_hex(16)
# Of a card about one kilobyte, of a page sixteen.
MOST = 1000

_kept: dict[Hashable, str] = {}


def piece(shows: Hashable, token: object, make: Callable[[], str]) -> SafeString:
    """Return what `make` returned for something that shows the same, with the token of this visitor in its forms."""
    if (html := _kept.get(shows)) is None:
        if len(_kept) >= MOST:
            _kept.clear()
        html = _kept[shows] = make()
    filled = html.replace(TOKEN, str(token))
    return SafeString(filled)  # nosec B703 # a template has made it, and a token is letters


def page(request: HttpRequest, template: str, context: Mapping[str, Any], **made_of_it: object) -> HttpResponse:
    """Render a public page; keep it for visitors who are not signed in and to whom nothing is to be told.

    It is rendered for a request that has nothing of theirs but address and theme, and kept under these and `context`,
    which may hold what `all_of` knows. `made_of_it` is derived from the context: a form that is made when needed.
    """
    everything = {**context, **made_of_it}
    if settings.DEBUG or request.user.is_authenticated or get_messages(request):
        return render(request, template, everything)
    anybody = request_of_anybody(request)
    shows = (template, anybody.get_full_path(), theme.chosen(request), get_language(), all_of(context))
    html = piece(
        shows, get_token(request), lambda: render_to_string(template, {**everything, "csrf_token": TOKEN}, anybody)
    )
    return HttpResponse(html)


def request_of_anybody(request: HttpRequest) -> HttpRequest:
    anybody = HttpRequest()
    anybody.method, anybody.path, anybody.resolver_match = "GET", request.path, request.resolver_match
    anybody.META["QUERY_STRING"] = request.META.get("QUERY_STRING", "")
    anybody.GET = QueryDict(anybody.META["QUERY_STRING"])
    anybody.COOKIES = {theme.COOKIE: theme.chosen(request)}
    return anybody


def all_of(value: object) -> Hashable:
    """Return all that a template could show of a value, to compare it by; raises `TypeError` where that is unknown."""
    if isinstance(value, Model):
        # Its columns; two rows with the same key are equal for Django, whatever stands in them.
        return (type(value), *(column for name, column in vars(value).items() if name != "_state"))
    if isinstance(value, Page):
        return (value.number, value.paginator.count, *map(all_of, value))
    if isinstance(value, Mapping):
        return tuple((name, all_of(part)) for name, part in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(all_of, value))
    if isinstance(value, str | int | Decimal | None):
        return value
    raise TypeError(f"Nothing is known of what a page shows of a {type(value).__name__}.")


@receiver(setting_changed)
def forget(**kwargs: object) -> None:
    """Forget all where tests change a setting."""
    _kept.clear()
