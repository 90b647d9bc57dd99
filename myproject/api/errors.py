"""Whatever goes wrong, a script reads one shape: `{"error": {"code", "message", "fields"}}`."""

import logging
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import DataError
from django.forms import BaseForm
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, Throttled, ValidationError

from myproject.web.answers import Fields, answer
from myproject.web.pages import MET

log = logging.getLogger(__name__)


class Refused(Exception):
    """The request can be read, and is not done; the message says why."""

    def __init__(self, message: str, *, code: str = "invalid", status: int = 422, fields: Fields | None = None) -> None:
        super().__init__(message)
        self.code, self.status, self.fields = code, status, fields or {}


def not_valid(fields: Fields) -> Refused:
    return Refused("Some fields are not valid.", fields=fields)


def not_valid_form(form: BaseForm) -> Refused:
    return not_valid({name: [*map(str, errors)] for name, errors in form.errors.items()})


def handle(api: NinjaAPI) -> None:
    """Let the API answer in this shape."""

    @api.exception_handler(Refused)
    def refused(request: HttpRequest, error: Refused) -> HttpResponse:
        return answer(error.status, error.code, str(error), error.fields)

    @api.exception_handler(ValidationError)
    def not_readable(request: HttpRequest, error: ValidationError) -> HttpResponse:
        fields: dict[str, list[str]] = {}
        for each in error.errors:
            fields.setdefault(place(each["loc"]), []).append(str(each["msg"]))
        return answer(422, "invalid", "Some fields are not valid.", fields)

    @api.exception_handler(AuthenticationError)
    def unknown(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
        message = "Send a token of your profile page: Authorization: Bearer …"
        return answer(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})

    @api.exception_handler(Throttled)
    def too_often(request: HttpRequest, error: Throttled) -> HttpResponse:
        wait = {"Retry-After": str(error.wait or 60)}
        return answer(429, "too_many_requests", "Too many requests. Please wait.", headers=wait)

    @api.exception_handler(HttpError)
    def told(request: HttpRequest, error: HttpError) -> HttpResponse:
        return answer(error.status_code, "bad_request", str(error))

    @api.exception_handler(Http404)
    def missing(request: HttpRequest, error: Http404) -> HttpResponse:
        return answer(404, "not_found", "There is no such thing, or it is not yours.")

    @api.exception_handler(PermissionDenied)
    def forbidden(request: HttpRequest, error: PermissionDenied) -> HttpResponse:
        return answer(403, "forbidden", "You may not do this.")

    @api.exception_handler(DataError)
    def not_storable(request: HttpRequest, error: DataError) -> HttpResponse:
        log.warning("The database could not read a request", exc_info=error)
        return answer(400, "bad_request", "A value cannot be stored.")

    for kind in MET:

        @api.exception_handler(kind)
        def met(request: HttpRequest, error: Exception) -> HttpResponse:
            return answer(409, "conflict", "Another request wrote the same. Please send it again.")


def place(location: Sequence[Any]) -> str:
    """Return `items.0.sku` for where pydantic found it; the body and its parameter have no name of their own."""
    return ".".join(map(str, location[2:] or location[-1:]))
