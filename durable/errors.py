"""Errors of the outside world."""


class TemporaryError(Exception):
    """It may work later: the task is retried, after at least `retry_after` seconds if the other side says so."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class PermanentError(Exception):
    """It will never work: the row ends with this message, which is shown to people."""
