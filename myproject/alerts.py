"""How the shop calls a person."""

import logging

log = logging.getLogger(__name__)


def alert(subject: str, message: str) -> None:
    """Tell whoever looks after the shop; call it once for each thing that happened, after the commit."""
    log.error("%s: %s", subject, message)
