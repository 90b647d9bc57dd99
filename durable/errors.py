"""The two ways in which the world outside fails."""


class TemporaryError(Exception):
    """It may work later: the task tries again, not before `retry_after` seconds where the other side asked for that."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class PermanentError(Exception):
    """It will never work: the row ends with this reason, which a person can read."""
