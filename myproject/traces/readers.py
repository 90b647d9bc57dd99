"""Who may look behind the scenes. Without models: processes ask it before Django is set up."""

from django.conf import settings
from django.http import HttpRequest


def may_look(request: HttpRequest) -> bool:
    """Return whether what happens behind the scenes is shown: in development to all, else to staff."""
    return settings.DEBUG or bool(getattr(request.user, "is_staff", False))
