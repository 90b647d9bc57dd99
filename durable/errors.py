"""Errors of the outside world, and how a row keeps what was said of them."""

import unicodedata
from typing import Any

from django.db import models


class TemporaryError(Exception):
    """It may work later: the task is retried, after at least `retry_after` seconds if the other side says so."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class PermanentError(Exception):
    """It will never work: the row ends with this message, which is shown to people."""


def readable(text: str) -> str:
    """Return somebody else's words on one line, with a dot for each character that no database or log can take."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join("·" if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in line)


def readable_lines(text: str) -> str:
    """Return somebody else's words as `readable` has them, line by line."""
    return "\n".join(map(readable, text.splitlines()))


class ReasonField(models.CharField):
    """Why something failed, often in the words of another company: readable, and cut to what the column holds.

    A NUL in one answer would otherwise fail the statement that records it together with the rest of its batch.
    """

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return readable(value)[: self.max_length] if isinstance(value, str) else value

    def deconstruct(self) -> Any:
        # How it is made readable is no part of the schema.
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.CharField", args, kwargs
