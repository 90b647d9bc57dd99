"""The CRM's API. It keeps the newest version of each person by our id: requests may repeat and arrive late."""

from datetime import datetime
from typing import Any

import requests
from django.conf import settings

from durable.errors import PermanentError, TemporaryError
from myproject import http

from .models import User

TIMEOUT_SECONDS = 30


class AccessDenied(PermanentError):
    """Our token is wrong, not this contact, which waits until the settings are fixed."""


def put_contact(user: User, version: datetime) -> None:
    """Create or update the contact. Raises `TemporaryError`, `AccessDenied` or `http.Refused`."""
    contact = {"email": user.email, "name": user.name, "changed_at": version.isoformat()}
    _ask("PUT", user.pk, json=contact)


def delete_contact(external_id: int, version: datetime) -> None:
    """Erase the contact, whether the CRM knows it or not. Raises what `put_contact` raises."""
    try:
        _ask("DELETE", external_id, params={"changed_at": version.isoformat()})
    except http.Refused as error:
        if error.status != requests.codes.not_found:
            raise


def _ask(method: str, external_id: int, **options: Any) -> None:
    headers = {"Authorization": f"Bearer {settings.CRM_TOKEN}"}
    url = f"{settings.CRM_URL}/contacts/{external_id}"
    try:
        http.request(method, url, timeout=TIMEOUT_SECONDS, headers=headers, **options)
    except TemporaryError as error:
        # Verb, address and status only: a retry is logged, and an answer may repeat personal data.
        raise TemporaryError(" ".join(str(error).split()[:3]), error.retry_after) from None
    except http.Refused as error:
        if error.status in (requests.codes.unauthorized, requests.codes.forbidden):
            raise AccessDenied(str(error)) from error
        raise
