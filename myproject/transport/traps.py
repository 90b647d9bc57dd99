"""The traps of signed messages, beside those of `durable/checks/traps.py`."""

from collections.abc import Iterable

from django.utils.module_loading import import_string

from durable.checks.traps import Setup, trap
from myproject.transport import signing


@trap(
    "E013",
    "Messages can neither be signed nor verified: nothing is published, and a worker does not start.",
    hint="Set all three or none, to what `manage.py make_certificates` makes.",
)
def messages_cannot_be_signed(setup: Setup) -> Iterable[str]:
    return asked("problems", setup)


@trap(
    "W005",
    "From then on every message is refused.",
    hint="Make a new one with `manage.py make_certificates`, and change over as docs/operations/security.md says.",
)
def certificate_ends_soon(setup: Setup) -> Iterable[str]:
    return asked("ends_soon", setup)


def asked(question: str, setup: Setup) -> Iterable[str]:
    """Ask the certificates, if any are named: `cryptography` takes 8 MB, and most processes never sign."""
    if not any(setup.conf.get(name) for name in signing.SETTINGS):
        return []
    found: Iterable[str] = import_string(f"myproject.transport.certificates.{question}")(setup.conf)
    return found
