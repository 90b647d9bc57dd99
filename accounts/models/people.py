"""Who has an account, and whose account is being erased."""

from typing import Any, ClassVar

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import AbstractUser, BaseUserManager, Permission
from django.core.exceptions import ValidationError
from django.db import connection, models, transaction
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.functional import cached_property

from durable.errors import PermanentError
from durable.mail import MAIL, TRIED_FOR, MailQuerySet, OwesMail
from myproject.texts import AddressField, WordsField

# A reserved domain (RFC 2606): mail to a deleted account cannot be delivered.
NOWHERE = "deleted.invalid"


def check_address(email: str) -> None:
    """Refuse an address that a deleted account may need; a validator, for each door."""
    if email.lower().endswith(f"@{NOWHERE}"):
        raise ValidationError("No mail reaches this address.", code="nowhere")


class UserManager(BaseUserManager.from_queryset(MailQuerySet)):  # type: ignore[misc]
    """Creates people who log in with their e-mail address."""

    use_in_migrations = True

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user: User = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def administrators(self) -> models.QuerySet["User"]:
        """People who may do everything, and by their *staff* also get to the pages where it is done."""
        return self.filter(is_superuser=True, is_staff=True, is_active=True)

    def get_by_natural_key(self, email: str | None) -> "User":
        user: User = self.get(email=email)
        return user


class User(OwesMail, AbstractUser):
    """A person; the mail owed is the welcome."""

    owed_since = "date_joined"

    username = first_name = last_name = None  # type: ignore[assignment]
    email = AddressField("e-mail address", unique=True, validators=[check_address])
    name = WordsField(max_length=100, blank=True)
    # Also a database default: during a rolling deploy the old version still registers people.
    wants_digest = models.BooleanField(
        "weekly digest",
        default=False,
        db_default=False,
        help_text="A mail each Monday: what you ordered, and what is new in the shop.",
    )
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="What was bought stays.")

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects = UserManager()  # type: ignore[misc]

    class Meta(OwesMail.Meta):
        constraints = [
            models.UniqueConstraint(Lower("email"), name="user_email_unique_in_any_case"),
            models.CheckConstraint(condition=Q(deleted_at=None) | Q(is_active=False), name="user_deleted_is_inactive"),
            # A person who had it would keep the account with that key from being deleted.
            models.CheckConstraint(
                condition=Q(deleted_at__isnull=False) | ~Q(email__iendswith=f"@{NOWHERE}"),
                name="user_nowhere_is_deleted",
            ),
        ]

    def __str__(self) -> str:
        return self.name or self.email

    def save(self, *args: Any, **kwargs: Any) -> None:
        # Django sets it with a new password, and not with the old one that is only hashed anew.
        if self._password is None or self._state.adding:  # type: ignore[attr-defined]
            super().save(*args, **kwargs)
            return
        with transaction.atomic():
            super().save(*args, **kwargs)
            self.end_access()

    def get_full_name(self) -> str:
        return str(self)

    def get_short_name(self) -> str:
        return str(self)

    @property
    def mail_address(self) -> str:
        """Where to send what is owed; of an account that was deleted meanwhile the address that it had.

        Makes a query then. Raises `PermanentError` when that is forgotten, too.
        """
        if self.deleted_at is None:
            return self.email
        try:
            return self.erasure.email
        except Erasure.DoesNotExist as error:
            raise PermanentError("The account was deleted.") from error

    @property
    def name_in_mails(self) -> str:
        """The name by which mails greet; empty until the address is verified, since a stranger may have typed both.

        Makes a query where `emailaddress_set` is not prefetched.
        """
        addresses: Any = self.emailaddress_set  # type: ignore[attr-defined]
        is_own = any(row.verified and row.email.lower() == self.email.lower() for row in addresses.all())
        return self.name if is_own else ""

    @property
    def alias(self) -> str:
        """The person's name after name and address are erased."""
        return f"deleted-{self.pk}"

    def may_act_for(self, other: "User") -> bool:
        """Return whether this person may change the other account: not one that has more rights. Makes queries."""
        if self.is_superuser or other.is_superuser:
            return self.is_superuser
        return self.has_perms(other.granted)

    @cached_property
    def granted(self) -> set[str]:
        """Permissions of the person and the groups. Those of inactive accounts too, since they may be reactivated."""
        rows = Permission.objects.filter(Q(user=self) | Q(group__user=self)).select_related("content_type")
        return {f"{row.content_type.app_label}.{row.codename}" for row in rows}

    def keep_open(self) -> None:
        """Make the closing of the account wait for the end of this transaction, and see what it has written.

        It is the lock that a foreign key takes as well, but at the commit only, which is too late.
        """
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM accounts_user WHERE id = %s FOR KEY SHARE", [self.pk])

    def end_access(self) -> None:
        """End what somebody who knew the former password may have left: tokens, and an address to be confirmed.

        Sessions and links that reset the password end by themselves.
        """
        self.api_tokens.all().delete()
        self.emailaddress_set.filter(verified=False).exclude(email__iexact=self.email).delete()  # type: ignore[attr-defined]

    def mark_deleted(self) -> bool:
        """Anonymise the row, which logs the person out everywhere; False if that was done before."""
        rows = User.objects.filter(pk=self.pk, deleted_at=None)
        erased = {"email": f"{self.alias}@{NOWHERE}", "name": "", "password": make_password(None), "last_login": None}
        powerless = {"is_active": False, "is_staff": False, "is_superuser": False}
        silent = {"wants_digest": False, "mail_error": "", **MAIL.ended()}
        return bool(rows.update(deleted_at=timezone.now(), **erased, **powerless, **silent))


class Erasure(OwesMail):
    """An account that is being erased, and the last row that has its address; its mail is the farewell.

    Created when the account is deleted; deleted when all of the person's data is gone.
    """

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="erasure")
    email = models.EmailField()
    name = WordsField(max_length=100, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    cleared_at = models.DateTimeField(null=True, blank=True, help_text="When all but this row was erased.")

    objects = MailQuerySet.as_manager()

    def __str__(self) -> str:
        return self.user.alias

    @property
    def is_given_up(self) -> bool:
        """True when a mail that cannot be delivered has kept the address for long enough."""
        return self.owed_for > TRIED_FOR

    def mark_cleared(self) -> None:
        Erasure.objects.filter(pk=self.pk).update(cleared_at=timezone.now())
