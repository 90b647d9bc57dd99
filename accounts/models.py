from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, BaseUserManager
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone

from myproject.mail import MailQuerySet, OwesMail


class UserManager(BaseUserManager.from_queryset(MailQuerySet)):  # type: ignore[misc]
    """Makes people who log in with their e-mail address."""

    use_in_migrations = True

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user: User = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, email: str | None) -> "User":
        user: User = self.get(email__iexact=email)
        return user


class User(OwesMail, AbstractUser):
    """A person; the mail owed is the welcome."""

    username = first_name = last_name = None  # type: ignore[assignment]
    email = models.EmailField("e-mail address", unique=True)
    name = models.CharField(max_length=100, blank=True)
    # Also a default of the database: while a new version is rolled out, the old one still registers people.
    wants_digest = models.BooleanField(
        "weekly digest",
        default=False,
        db_default=False,
        help_text="A mail each Monday: what you ordered, and what is new in the shop.",
    )

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects = UserManager()  # type: ignore[misc]

    class Meta(OwesMail.Meta):
        constraints = [
            models.UniqueConstraint(Lower("email"), name="user_email_unique_in_any_case"),
        ]

    def __str__(self) -> str:
        return self.name or self.email

    def get_full_name(self) -> str:
        return str(self)

    def get_short_name(self) -> str:
        return str(self)


class AccountMail(OwesMail):
    """A mail about an account, such as an address to verify. Written when it is asked for: it holds a one-time link."""

    to = models.EmailField()
    subject = models.CharField(max_length=200)
    text = models.TextField()
    html = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MailQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.subject} ({self.created_at:%Y-%m-%d %H:%M})"


class Notification(OwesMail):
    """A notice to a person, by mail; `services.notify` writes it."""

    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="notifications")
    subject = models.CharField(max_length=200)
    message = models.TextField()
    url = models.CharField(max_length=500, blank=True, help_text="Where it leads: a path of ours, or a whole address.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MailQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.subject} ({self.created_at:%Y-%m-%d %H:%M})"
