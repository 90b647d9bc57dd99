"""Alerts to the operators, canaries of the queues, and dead letters."""

import hashlib
from collections import Counter
from datetime import datetime, timedelta
from typing import Self

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from durable.errors import ReasonField, readable
from durable.leases import Lease, Leased, LeasedQuerySet
from myproject.queues import QUEUES
from myproject.transport.envelope import Kind, Refusal

# Canaries are sent each minute; when none was sent for this long, beat was away.
CANARY_PAUSE = timedelta(minutes=3)
# Limits of a dead letter's stored bytes, and of stored letters, so that a flood at the broker cannot fill the database.
MAX_KEPT = 64 * 1024
MAX_LETTERS = 10_000
# One statement, so that a hundred tasks that fail at once make one row without waiting for each other.
RECORD = """
INSERT INTO myproject_alert AS known
    (cause, subject, message, count, told_count, first_at, last_at, due_at, claimed_by, reached, error)
VALUES (%(cause)s, %(subject)s, %(message)s, %(times)s, 0, %(now)s, %(now)s, %(due_at)s, '', '{}', '')
ON CONFLICT (cause) DO UPDATE SET
    subject = EXCLUDED.subject, message = EXCLUDED.message, last_at = EXCLUDED.last_at,
    count = known.count + EXCLUDED.count,
    due_at = COALESCE(known.due_at, GREATEST(EXCLUDED.due_at, known.sent_at + %(cool_down)s))
RETURNING *
"""


class AlertQuerySet(LeasedQuerySet["Alert"]):
    def quiet_since(self, moment: datetime) -> Self:
        """Alerts that need no message, and whose cause has not happened since."""
        return self.filter(due_at=None, last_at__lt=moment)

    def record(self, cause: str, subject: str, message: str, times: int = 1) -> "Alert":
        """Count the cause up and return its row; within the cool-down the row is due only when that ends.

        Due even where no address is known: only the worker that tells of it knows whether there are any.
        """
        now = timezone.now()
        cause, subject, message = map(readable, (cause, subject, message))
        values = {"cause": cause[:200], "subject": subject[:200], "message": message, "times": times, "now": now}
        values |= {"due_at": now, "cool_down": settings.ALERT_COOL_DOWN}
        return self.raw(RECORD, values)[0]

    def leave_untold(self) -> None:
        """Record that nothing is to be sent, since there is no address."""
        self.update(due_at=None)

    def open(self) -> Self:
        """Alerts that are still to be sent, or whose cause has happened within a day."""
        return self.filter(Q(due_at__isnull=False) | Q(last_at__gte=timezone.now() - timedelta(days=1)))

    def give_up_silent(self) -> None:
        """End alerts that reached at least one address, so that an unreachable one does not hold up the others."""
        for alert in self.exclude(reached=[]).exclude(due_at=None):
            alert.mark_sent(error=alert.error)


class Alert(Leased):
    """One cause, however often it happens. `due_at` is None if nothing is to be sent."""

    # How long one task may try, retries included.
    lease = Lease(open=Q(due_at__isnull=False), lasts=lambda: timedelta(minutes=10), message_first=False)

    cause = models.CharField(max_length=200, unique=True)
    subject = models.CharField(max_length=200)
    message = models.TextField()
    count = models.PositiveBigIntegerField("happened", default=1, help_text="Times, all in all.")
    told_count = models.PositiveBigIntegerField("told", default=0, help_text="How many of them messages spoke of.")
    first_at = models.DateTimeField(default=timezone.now)
    last_at = models.DateTimeField(default=timezone.now)
    sent_at = models.DateTimeField(null=True, blank=True)
    reached = ArrayField(models.CharField(max_length=16), default=list, blank=True, editable=False)
    error = ReasonField(max_length=300, blank=True)

    objects = AlertQuerySet.as_manager()

    class Meta:
        # Permissions for pages without a model of their own.
        permissions = [
            ("view_status", "Can see the status of queues and workers"),
            ("use_flower", "Can use Flower"),
            ("try_tasks", "Can queue tasks to try them"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(count__gte=F("told_count")), name="alert_told_of_what_happened")
        ]
        indexes = [models.Index(fields=["due_at"], name="alert_due", condition=Q(due_at__isnull=False))]

    def __str__(self) -> str:
        return self.subject

    @property
    def is_due(self) -> bool:
        return self.due_at is not None and self.due_at <= timezone.now()

    @property
    def text(self) -> str:
        """The message, with how often it happened since the last one."""
        untold = self.count - self.told_count
        if self.sent_at is None:
            return self.message if untold < 2 else f"{self.message} It happened {untold} times."
        since = timezone.localtime(self.sent_at)
        return f"{self.message} It happened {untold} more time{'s' * (untold != 1)} since {since:%d %b %H:%M}."

    def mark_reached(self, address: str) -> None:
        self.reached = [*self.reached, address]
        self.held().update(reached=self.reached)

    def mark_silent(self, reason: str) -> None:
        self.held().update(error=reason)

    def mark_sent(self, error: str = "") -> bool:
        """Record what was sent; what has happened since is due after the cool-down."""
        now = timezone.now()
        later = Case(When(count__gt=self.count, then=Value(now + settings.ALERT_COOL_DOWN)), default=None)
        fields = {"sent_at": now, "told_count": self.count, "due_at": later, "claimed_by": "", "reached": []}
        return bool(self.held().update(**fields, error=error))

    def mark_failed(self, reason: str) -> None:
        self.finish(error=reason)


class CanaryQuerySet(models.QuerySet["Canary"]):
    def record(self, queue: str, sent_at: datetime) -> bool:
        """Record that a canary came through its queue; False if it is not newer than the last one."""
        now = timezone.now()
        rows = [self.model(queue=known, watched_since=now) for known in QUEUES]
        self.bulk_create(rows, ignore_conflicts=True)
        before = self.get(queue=queue).sent_at
        ran = {"sent_at": sent_at, "ran_at": now, "watched_since": sent_at, "told_at": None}
        is_newest = self.filter(Q(sent_at=None) | Q(sent_at__lt=sent_at), queue=queue).update(**ran)
        # None were sent for a while, so none could come through the other queues either.
        if before and sent_at - before > CANARY_PAUSE:
            self.update(watched_since=now)
        return bool(is_newest)

    def overdue(self) -> list["Canary"]:
        return [row for row in self.order_by("queue") if row.is_overdue]


class Canary(models.Model):
    """The newest of the small messages through one queue that has run; one of each queue is sent each minute."""

    queue = models.CharField(max_length=50, primary_key=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    ran_at = models.DateTimeField(null=True, blank=True)
    watched_since = models.DateTimeField(help_text="One that was sent after this should have run.")
    told_at = models.DateTimeField(null=True, blank=True, help_text="When it was found to be overdue.")

    objects = CanaryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "canaries"

    def __str__(self) -> str:
        return self.queue

    @property
    def in_queue(self) -> timedelta | None:
        """How long the newest one waited for a worker; None when none has run yet."""
        return max(self.ran_at - self.sent_at, timedelta(0)) if self.ran_at and self.sent_at else None

    @property
    def is_overdue(self) -> bool:
        queue = QUEUES.get(self.queue)
        return queue is not None and timezone.now() - self.watched_since > queue.late_after

    def mark_told(self) -> bool:
        """Record that an alert about it is due; False if that was recorded recently."""
        now = timezone.now()
        untold = Q(told_at=None) | Q(told_at__lt=now - settings.ALERT_COOL_DOWN)
        return bool(
            Canary.objects.filter(untold, queue=self.queue, watched_since=self.watched_since).update(told_at=now)
        )


class DeadLetterQuerySet(models.QuerySet["DeadLetter"]):
    def record(self, letters: list[Refusal]) -> None:
        """Keep the messages; those that have come before are only counted. No more than `MAX_LETTERS` are kept."""
        counts = Counter(map(digest, letters))
        known = set(self.filter(digest__in=counts).values_list("digest", flat=True))
        for each in known:
            self.filter(digest=each).update(count=F("count") + counts[each], last_at=timezone.now())
        new = {digest(letter): letter for letter in letters}
        rows = [
            self.model(digest=each, count=counts[each], **letter._asdict())
            for each, letter in new.items()
            if each not in known
        ]
        # Another worker may be storing the same ones.
        self.bulk_create(rows[: max(0, MAX_LETTERS - self.count())], ignore_conflicts=True)


def digest(letter: Refusal) -> str:
    """Return a digest that is equal for a redelivered message."""
    return hashlib.sha256(f"{letter.kind}\n{letter.queue}\n".encode() + letter.raw).hexdigest()


class DeadLetter(models.Model):
    """A message that no worker can run, stored unchanged; its content is untrusted."""

    kind = models.CharField(max_length=20, choices=[(kind.value, kind.value) for kind in Kind])
    queue = models.CharField(max_length=80)
    task = models.CharField(max_length=80, blank=True, help_text="What it calls itself.")
    reason = models.CharField(max_length=300)
    raw = models.BinaryField(help_text="Its first 64 kB.")
    size = models.PositiveBigIntegerField(help_text="Of all of it, in bytes.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    count = models.PositiveBigIntegerField("came", default=1, help_text="Times, all in all.")
    first_at = models.DateTimeField(default=timezone.now)
    last_at = models.DateTimeField(default=timezone.now)

    objects = DeadLetterQuerySet.as_manager()

    class Meta:
        permissions = [("resend_deadletter", "Can send dead letters again")]
        indexes = [models.Index(fields=["-last_at"], name="dead_letter_last")]

    def __str__(self) -> str:
        return f"{self.kind}, {self.size} bytes"

    @property
    def can_be_sent_again(self) -> bool:
        """Return whether sending it again makes sense: its task is known now, and it was stored completely."""
        return self.kind == Kind.UNKNOWN and self.size == len(self.raw)
