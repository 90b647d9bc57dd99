"""A form that is sent twice, by a double click or by a browser that tries again, is done once."""

from functools import wraps
from hashlib import blake2b
from typing import Any

from django.contrib import messages
from django.core.cache import cache
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse

from myproject.web.pages import View

# Seconds for which a form that was sent is known. If it is sent again later, that is meant.
REMEMBERED = 60


def once(view: View) -> View:
    """Let the view take each form once: a second request with the same form waits, and is led where the first was.

    All is done in one transaction. A form that was refused, with its page as the answer, may be sent again.
    """

    @wraps(view)
    def taken(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        # The token differs with each page that is shown. A program that sends none says each time what it means.
        if request.method != "POST" or not request.POST.get("csrfmiddlewaretoken"):
            return view(request, *args, **kwargs)
        number = number_of(request)
        with transaction.atomic():
            hold(number)
            if done := cache.get(f"sent-once-{number}"):
                return repeated(request, done)
            response = view(request, *args, **kwargs)
            if done := outcome_of(response):
                cache.set(f"sent-once-{number}", done, timeout=REMEMBERED)
            return response

    return taken


def number_of(request: HttpRequest) -> int:
    """Return 64 bits that say who has sent what, and where."""
    told = blake2b(
        repr((request.user.pk, request.path, sorted(request.POST.lists()))).encode(),
        digest_size=8,
    )
    for name, files in sorted(request.FILES.lists()):
        for file in files:
            told.update(name.encode())
            for chunk in file.chunks():
                told.update(chunk)
            file.seek(0)
    return int.from_bytes(told.digest(), signed=True)


def hold(number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [number])


def outcome_of(response: HttpResponseBase) -> str:
    """Return where the answer leads, or what a popup tells the page that opened it; empty if nothing was done."""
    told = (getattr(response, "context_data", None) or {}).get("popup_response_data", "")
    return response.headers.get("Location") or str(told)


def repeated(request: HttpRequest, done: str) -> HttpResponse:
    # An address begins otherwise than the JSON of a popup.
    if done.startswith("{"):
        return TemplateResponse(request, "admin/popup_response.html", {"popup_response_data": done})
    messages.info(request, "This form had been sent already.")
    return redirect(done)
