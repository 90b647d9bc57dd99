"""The weekly digest."""

from datetime import date, datetime, time, timedelta

from django.conf import settings
from django.db import connection, models
from django.db.models import Q
from django.utils import timezone

from durable.mail import MailQuerySet, OwesMail

# Set by set it would be many statements; person by person, 100,000. ON CONFLICT makes twice once.
PLAN = """
INSERT INTO orders_digest (person_id, week, mail_due_at, mail_error, skip_reason)
SELECT id, %s, %s, '', '' FROM accounts_user WHERE is_active AND wants_digest
ON CONFLICT (week, person_id) DO NOTHING
"""


class Skip(models.TextChoices):
    """Why a digest that was planned is not sent."""

    NOTHING = "nothing", "Nothing ordered and nothing new"
    UNWANTED = "unwanted", "Unsubscribed or switched off before it was sent"
    LATE = "late", "Not sent before the next one"


class DigestQuerySet(MailQuerySet):
    def plan(self, week: date) -> int:
        """Create the week's row for each subscriber in one statement; return how many are new."""
        with connection.cursor() as cursor:
            cursor.execute(PLAN, [week, timezone.now()])
            return cursor.rowcount

    def skip(self, why: Skip) -> int:
        """Skip the unsent ones; return how many there were."""
        return self.unsent().update(mail_due_at=None, skip_reason=why)


class Digest(OwesMail):
    """One person's digest of one week; `week` is the Monday on which it is sent.

    It covers the seven days before, so each order and each new product is in one digest, however late that is sent.
    """

    owed_since = "mail_due_at"

    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="digests")
    week = models.DateField()
    skip_reason = models.CharField(max_length=10, choices=Skip.choices, blank=True)

    objects = DigestQuerySet.as_manager()

    class Meta(OwesMail.Meta):
        constraints = [
            models.UniqueConstraint(fields=["week", "person"], name="digest_once_a_week"),
            models.CheckConstraint(
                condition=Q(skip_reason="") | Q(mail_due_at=None, mail_sent_at=None), name="digest_skipped_is_not_owed"
            ),
        ]

    def __str__(self) -> str:
        return f"Digest {self.pk} of {self.week}"

    @property
    def owed_for(self) -> timedelta:
        # Each attempt moves `mail_due_at`.
        return timezone.now() - days_before(self.week)[1]

    @property
    def outcome(self) -> str:
        """Its outcome, for staff."""
        return self.get_skip_reason_display() or self.mail_error or ("Sent" if self.mail_sent_at else "Waiting")


def week_of(moment: datetime) -> date:
    """Return the Monday of the moment's week, in the shop's own time."""
    day = timezone.localdate(moment)
    return day - timedelta(days=day.weekday())


def days_before(week: date) -> tuple[datetime, datetime]:
    """Return the start and the end of the seven days before that Monday, in the shop's own time.

    That is not always 168 hours: twice a year the clocks change in between.
    """
    start, end = (timezone.make_aware(datetime.combine(day, time.min)) for day in (week - timedelta(days=7), week))
    return start, end
