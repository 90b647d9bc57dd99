"""Where Django looks for the admin of this app."""

from typing import Any

from allauth.mfa.admin import AuthenticatorAdmin as BaseAuthenticatorAdmin
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

# They register themselves.
from myproject.alerting import admin as alerting_admin  # noqa: F401
from myproject.monitoring import admin as monitoring_admin  # noqa: F401

admin.site.site_header = admin.site.site_title = "Lantern & Loom"

admin.site.unregister(Authenticator)


@admin.register(Authenticator)
class AuthenticatorAdmin(BaseAuthenticatorAdmin):
    """To delete it for whoever has lost a phone; its secret is shown to nobody, and nothing can be changed."""

    fields = ["user", "type", "created_at", "last_used_at"]

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
