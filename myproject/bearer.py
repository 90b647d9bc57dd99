"""Who may read metrics: a program that sends the token."""

from hmac import compare_digest
from http import HTTPStatus

from django.conf import settings


def refusal(authorization: str) -> HTTPStatus | None:
    """Return why this client may not read, None when it may."""
    if not settings.METRICS_TOKEN:
        return HTTPStatus.NOT_FOUND
    expected = f"Bearer {settings.METRICS_TOKEN}"
    return None if compare_digest(authorization.encode(), expected.encode()) else HTTPStatus.UNAUTHORIZED


def challenge(status: HTTPStatus) -> dict[str, str]:
    return {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
