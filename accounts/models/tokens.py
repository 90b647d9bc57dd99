"""Tokens by which a person's scripts use the shop."""

import secrets
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from myproject.texts import WordsField

if TYPE_CHECKING:
    from .people import User

# So that one that was published by mistake can be searched for.
PREFIX = "shop_"
# How exactly the page says when a token was last used: each use would be a write.
USED_WITHIN = timedelta(minutes=10)


def digest_of(secret: str) -> str:
    # 256 random bits cannot be guessed, so a slow hash would protect nothing.
    return sha256(secret.encode()).hexdigest()


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def make(self, person: Any, name: str) -> str:
        """Create a token; return its secret, which nothing can show again."""
        secret = PREFIX + secrets.token_urlsafe(32)
        self.create(person=person, name=name, digest=digest_of(secret))
        return secret

    def person_of(self, secret: str) -> "User | None":
        """Return whose token it is; None if nobody's, or if they may not log in."""
        token = self.select_related("person").filter(digest=digest_of(secret), person__is_active=True).first()
        if token is None:
            return None
        now = timezone.now()
        self.filter(Q(used_at=None) | Q(used_at__lt=now - USED_WITHIN), pk=token.pk).update(used_at=now)
        return token.person


class ApiToken(models.Model):
    """One token of a person; only a digest is kept of what the script sends."""

    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = WordsField(max_length=60, help_text="What it is for, such as the name of the script.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ApiTokenQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name
