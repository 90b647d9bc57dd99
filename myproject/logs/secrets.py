"""Which settings may be shown, and which values no text may hold: at workers, in logs, on error pages, at Sentry."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote

from celery.app.utils import Settings
from django.views.debug import SafeExceptionReporterFilter

# Variables of .env.example that are a secret, or an address that holds one; HEADERS are those of OpenTelemetry's SDK.
VARIABLES = re.compile(r"(\w+_)?(KEY|KEY_FALLBACKS|SECRET|TOKEN|PASSWORD|DSN|URLS?|BACKEND|BASE|ENDPOINT|HEADERS)$")
KEYS = {"SENTRY_DSN", "STORAGE_URL"}
# Shorter ones stand in too many words.
SHORTEST = 6
# Celery's own settings that hold none. By name: whatever is added later is not shown.
SHOWN = re.compile(
    r"(task|worker|event)_\w+|(result_)?accept_content|result_(serializer|extended|expires)|enable_utc|timezone"
    r"|beat_(scheduler|max_loop_interval)|broker_(heartbeat|pool_limit|connection_(timeout|retry\w*|max_retries))"
)


def show_no_other_settings() -> None:
    """Let `celery report` and `inspect conf`, and so Flower, show what is `SHOWN`.

    Celery takes all of Django's settings for its own, and hides by name: STORAGE_URL and ALERT_URLS are shown.
    """
    table = Settings.table

    def shown(self: Settings, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        found = table(self, with_defaults, censored)
        return {name: value for name, value in found.items() if SHOWN.fullmatch(name.lower().removeprefix("celery_"))}

    Settings.table = shown


def secrets_in(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what is secret in the variables: a value, or the password of an address; each as it may be written."""
    for name, value in environment.items():
        if not VARIABLES.fullmatch(name):
            continue
        if name.endswith("HEADERS"):
            # authorization=Bearer%20…,api-key=…
            found = [unquote(pair.partition("=")[2]).rpartition(" ")[2] for pair in value.split(",")]
        elif "://" not in value:
            found = value.split(",")
        elif name == "ALERT_URLS":
            # Tokens stand in the place of a host, in paths and in queries; hosts have dots.
            found = [part for part in re.split(r"[\s/:@?&=]+", value) if "." not in part]
        else:
            users = [user.split(":", 1) for user in re.findall(r"://([^\s;/]*)@", value)]
            # The name of a user is none, but in these two, where it is a key.
            found = [part for user in users for part in (user if name in KEYS else user[1:])]
        for part in found:
            yield from {form for form in (part, unquote(part)) if len(form) >= SHORTEST}


@cache
def secrets() -> list[str]:
    """Return those of this process: at the first text, when the settings have read .env."""
    # Long ones first, of which another may be a part.
    return sorted(set(secrets_in(os.environ)), key=len, reverse=True)


def hide(text: str) -> str:
    for secret in secrets():
        if secret in text:
            text = text.replace(secret, "…")
    return text


class ErrorPages(SafeExceptionReporterFilter):
    """Of DEBUG: hides settings and headers by their values too, since Django knows names only."""

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        cleansed = super().cleanse_setting(key, value)
        return hide(cleansed) if isinstance(cleansed, str) else cleansed
