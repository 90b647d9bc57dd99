"""The traps of signed messages, beside those of `durable/checks/traps.py`."""

from collections.abc import Iterable

from durable.checks.traps import Setup, trap
from myproject.transport import certificates


@trap(
    "E013",
    "Messages can neither be signed nor verified: nothing is published, and a worker does not start.",
    hint="Set all three or none, to what `manage.py make_certificates` makes.",
)
def messages_cannot_be_signed(setup: Setup) -> Iterable[str]:
    return certificates.problems(setup.conf)


@trap(
    "W005",
    "From then on every message is refused.",
    hint="Make a new one with `manage.py make_certificates`, and change over as docs/operations/security.md says.",
)
def certificate_ends_soon(setup: Setup) -> Iterable[str]:
    return certificates.ends_soon(setup.conf)
