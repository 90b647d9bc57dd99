"""The two ways in which the world outside fails."""


class TemporaryError(Exception):
    """It may work later: the task tries again."""


class PermanentError(Exception):
    """It will never work: the row ends with this reason, which a person can read."""
