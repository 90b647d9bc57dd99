"""The variables of an arena: servers, sandbox and lease times of its own, so that nothing of the shop is touched."""

import os
import secrets
import socket
from pathlib import Path

from myproject import embedded

# Of the real environment, which must not reach the arena.
NOT_OURS = ("SENTRY_DSN", "STORAGE_URL", "HEARTBEAT_DIR", "METRICS_PORT", "METRICS_TOKEN", "CELERY_RESULT_BACKEND")


def variables(home: Path) -> dict[str, str]:
    """Return what the settings are to read in the arena's processes."""
    return dict.fromkeys(NOT_OURS, "") | {
        "DJANGO_SETTINGS_MODULE": "myproject.settings",
        "LAB": "true",
        "VAR_DIR": str(home),
        "DATABASE_URL": embedded.database_url(home),
        "CELERY_BROKER_URL": embedded.broker_url(home),
        "CELERY_RESULT_BACKEND": "django-db",
        "CELERY_SECURITY_KEY": "",
        "CELERY_SECURITY_CERTIFICATE": "",
        "CELERY_SECURITY_CERT_STORE": "",
        "METRICS_PORT": "0",
        "DEBUG": "false",
        "HTTPS": "false",
        "SECRET_KEY": secrets.token_hex(32),
        "ALLOWED_HOSTS": "testserver",
        "LOG_LEVEL": "WARNING",
        "LOG_FORMAT": "console",
        "TIME_ZONE": "Europe/Berlin",
        # Short, so that nobody has to wait for what is there.
        "ORDER_LEASE_SECONDS": "5",
        "REPORT_LEASE_SECONDS": "3",
        "IMPORT_LEASE_SECONDS": "5",
        "STRIPE_TIMEOUT_SECONDS": "3",
        **sandbox_variables(free_port(), free_port()),
    }


def sandbox_variables(web: int, smtp: int) -> dict[str, str]:
    url = f"http://127.0.0.1:{web}"
    return {
        "SANDBOX_PORT": str(web),
        "SMTP_PORT": str(smtp),
        "SANDBOX_URL": url,
        "STRIPE_API_KEY": "sk_test_sandbox",
        "STRIPE_API_BASE": url,
        "STRIPE_WEBHOOK_SECRET": "whsec_sandbox",
        "SANDBOX_WEBHOOK_URL": "",
        "WAREHOUSE_URL": f"{url}/warehouse",
        "WAREHOUSE_TOKEN": "wh_test_sandbox",
        "CRM_URL": "",
        "EMAIL_URL": f"smtp://127.0.0.1:{smtp}",
        "ALERT_URLS": "",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def apply(home: Path) -> None:
    """Set the variables in this process; before anything reads the settings."""
    os.environ.update(variables(home))
