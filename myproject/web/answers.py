"""What a script reads when something goes wrong: always one shape."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, JsonResponse

Fields = Mapping[str, Sequence[str]]
Headers = dict[str, str]


def is_for_script(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def answer(
    status: int, code: str, message: str, fields: Fields | None = None, headers: Headers | None = None
) -> HttpResponse:
    body = {"error": {"code": code, "message": message, "fields": dict(fields or {})}}
    return JsonResponse(body, status=status, headers=headers)


def of_status(status: int, headers: Headers | None = None) -> HttpResponse:
    """Answer what needs no more words than its status."""
    known = HTTPStatus(status)
    code, message = known.phrase.lower().replace(" ", "_"), known.description or known.phrase
    return answer(status, code, f"{message}.", headers=headers)
