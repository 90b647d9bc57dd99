"""Leases: a worker takes a row for a limited time, and each of its writes proves that it still holds the row.

The pattern has three parts. *Claim*: a compare-and-set, with `FOR UPDATE SKIP LOCKED` for a set, gives the row to one
worker until `due_at`. *Hold*: the claim leaves a fencing token in `claimed_by`, new for every claim, and a write that
does not find its token changes nothing. *Sweep*: a row whose `due_at` has passed is held by no worker and is queued
again (`sweeps.py`). So a worker that is killed, frozen or cut off costs time and never work.

Fencing tokens are described by Martin Kleppmann, "How to do distributed locking" (2016).
"""

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Self, TypeVar, cast

from celery import current_task
from django.core.exceptions import EmptyResultSet
from django.db import connection, models
from django.db.models import F, Q
from django.db.models.expressions import RawSQL
from django.db.models.sql import UpdateQuery
from django.utils import timezone

from . import trace


class LeaseLost(Exception):
    """Another worker holds the row, or the work has ended: this worker must not write any more."""


@dataclass(frozen=True)
class Lease:
    """One lease of a model: which rows owe work, and for how long a worker may take one.

    Its columns are `due_at` and `claimed_by`, and `attempts` where `max_attempts` bounds them. A row with several
    leases, such as an order that also owes a mail, has one `Lease` for each, with a `prefix` before the columns' names.
    """

    # Rows that owe work, claimed or not.
    open: Q
    # Longer than the task's hard time limit, so that two workers never work on a row at the same time.
    lasts: Callable[[], timedelta]
    prefix: str = ""
    max_attempts: int | None = None
    # Whether a new row is left to its own message for one lease before the sweep queues it; else it is due at once.
    message_first: bool = True

    @property
    def due_at(self) -> str:
        return f"{self.prefix}due_at"

    @property
    def claimed_by(self) -> str:
        return f"{self.prefix}claimed_by"

    @property
    def attempts(self) -> str:
        return f"{self.prefix}attempts"

    def over(self) -> Q:
        """Rows whose time has come: no worker holds them any more."""
        return Q(**{f"{self.due_at}__lte": timezone.now()})

    def tired(self) -> Q:
        """Rows whose attempts are used up."""
        return Q(**{f"{self.attempts}__gte": self.max_attempts}) if self.max_attempts else Q(pk__in=[])

    def free(self, task_id: str = "") -> Q:
        """Rows that this task may claim: unclaimed ones, those whose lease is over, and its own from an earlier try."""
        free = self.over()
        if self.message_first:
            free |= Q(**{self.claimed_by: ""})
        if task_id:
            free |= Q(**{f"{self.claimed_by}__startswith": f"{task_id}/"})
        # Of the time that one order takes, a good part is spent on this: no condition stands here for nothing.
        return self.open & free & ~self.tired() if self.max_attempts else self.open & free

    def until(self, pause: timedelta | None = None) -> dict[str, Any]:
        """Return the column that says when the row is due: after one lease, or after the pause."""
        return {self.due_at: timezone.now() + (self.lasts() if pause is None else pause)}

    def fresh(self) -> dict[str, Any]:
        """Return the columns of a row that owes work anew."""
        counted = {self.attempts: 0} if self.max_attempts else {}
        return {**self.until(None if self.message_first else timedelta(0)), self.claimed_by: "", **counted}

    def ended(self) -> dict[str, Any]:
        """Return the columns of a row whose work has ended."""
        return {self.due_at: None, self.claimed_by: ""}


Row = TypeVar("Row", bound=models.Model)
# How long a row waits where workers are busy, and after how long its message counts as lost.
SHORTEST_WAIT, NEWEST_WAIT = timedelta(milliseconds=20), timedelta(seconds=1)
# In a claim: the row that was named, and is locked already.
NAMED = RawSQL("SELECT pk FROM named", ())


class LeasedQuerySet(models.QuerySet[Row]):
    """Rows of a model that has a `lease`; each method accepts another of its leases."""

    def due(self, lease: Lease | None = None) -> Self:
        """Rows to queue again: open, overdue, with attempts left."""
        lease = self._lease(lease)
        return self.filter(lease.open & lease.over() & ~lease.tired())

    def exhausted(self, lease: Lease | None = None) -> Self:
        """Rows to give up: open, overdue, with their attempts used up."""
        lease = self._lease(lease)
        return self.filter(lease.open & lease.over() & lease.tired())

    def free(self, lease: Lease | None = None) -> Self:
        """Rows that the current task may claim."""
        return self.filter(self._lease(lease).free(current_task_id()))

    def unclaimed(self, lease: Lease | None = None) -> Self:
        """Open rows that no worker has taken yet."""
        lease = self._lease(lease)
        return self.filter(lease.open, **{lease.claimed_by: ""})

    def takes_along(self, row: models.Model, *, every: int, lease: Lease | None = None) -> bool:
        """Return whether `row`, new and committed, needs no message: that of an older row takes it along.

        That is the case if an older row of the last second has waited for a while, as in a backlog. A lost message
        delays few rows: each `every`-th row has a message of its own, and so has a row that comes a second later. A
        task that claims a set must queue one of the rows that are `unclaimed` at its end. Makes a query.
        """
        lease = self._lease(lease)
        if row.pk % every == 0:
            return False
        written = timezone.now() + lease.lasts()
        waits = {f"{lease.due_at}__range": (written - NEWEST_WAIT, written - SHORTEST_WAIT), "pk__lt": row.pk}
        return self.unclaimed(lease).filter(**waits).exists()

    def claim(
        self,
        *,
        first: models.QuerySet[Any] | None = None,
        limit: int = 1,
        lease: Lease | None = None,
        **fields: Any,
    ) -> list[Row]:
        """Take `first`, and of these rows so many that they are `limit` in all, for one lease; return those won.

        `first` names one row, whose lock is waited for; of the others those that are locked are passed over. All rows
        of a claim share a token, and get these `fields`. In a transaction of the caller's they stay locked until its
        end.
        """
        lease, task_id = self._lease(lease), current_task_id()
        named = self.none() if first is None else first.filter(lease.free(task_id))[:1]
        free = self.filter(lease.free(task_id)).exclude(pk__in=NAMED).order_by(lease.due_at, "pk")
        counted = {lease.attempts: F(lease.attempts) + 1} if lease.max_attempts else {}
        claim = {**fields, **counted, **lease.until(), lease.claimed_by: token_of(task_id)}
        rows = self._take(named, free[: limit - (first is not None)], claim)
        related = _paths(self.query.select_related) | _paths(named.query.select_related)
        models.prefetch_related_objects(rows, *sorted(related))
        trace.claimed(rows)
        return rows

    def _take(self, named: models.QuerySet[Any], others: models.QuerySet[Any], claim: dict[str, Any]) -> list[Row]:
        """Lock both and write the claim, in one statement; return the rows as they are now, `named` first."""
        everybody, key = self.model._base_manager.using(self.db), f'"{self.model._meta.pk.column}"'
        update, values = _update_sql(everybody.all(), claim)
        first, first_values = named.values("pk").query.get_compiler(self.db, elide_empty=False).as_sql()
        rest, rest_values = others.values("pk").query.get_compiler(self.db, elide_empty=False).as_sql()
        lock = f'FOR UPDATE OF "{self.model._meta.db_table}"'
        columns = ", ".join(f'"{field.column}"' for field in self.model._meta.concrete_fields)
        # `others` reads `named`, which is therefore locked before it: who waits for a lock holds none.
        sql = f"""WITH named (pk) AS MATERIALIZED ({first} {lock}),
            others (pk) AS MATERIALIZED ({rest} {lock} SKIP LOCKED),
            chosen (keys) AS MATERIALIZED (SELECT ARRAY(SELECT pk FROM named UNION ALL SELECT pk FROM others))
            {update} WHERE {key} = ANY(ARRAY(SELECT unnest(keys) FROM chosen))
            RETURNING {columns}, array_position((SELECT keys FROM chosen), {key}) AS _place"""  # noqa: S608
        rows = everybody.raw(sql, (*first_values, *rest_values, *values))
        return sorted(rows, key=lambda row: row.__dict__.pop("_place"))

    def held(self, rows: Iterable[models.Model], lease: Lease | None = None) -> Self:
        """Those of these rows whose fencing token is still the one that was read."""
        lease = self._lease(lease)
        holds = Q(pk__in=[])
        for token, keys in _keys_by_token(rows, lease).items():
            holds |= Q(**{"pk__in": keys, lease.claimed_by: token})
        return self.filter(lease.open & holds)

    def finish(self, lease: Lease | None = None, **fields: Any) -> list[Any]:
        """End the open rows among these, and set these fields; return their keys."""
        lease, key = self._lease(lease), str(self.model._meta.pk.column)
        return [pk for (pk,) in self.filter(lease.open).update_returning(key, **lease.ended(), **fields)]

    def update_returning(
        self, *columns: str, also: tuple[str, Sequence[object]] | None = None, **fields: object
    ) -> list[tuple[Any, ...]]:
        """Like `update`, but return these columns of each row that it changed.

        `also` is SQL and its parameters, executed in the same statement, which reads these rows as `changed`.
        """
        try:
            sql, params = _update_sql(self, fields)
        except EmptyResultSet:
            return []
        sql = f"{sql} RETURNING {', '.join(columns)}"
        if also:
            sql, params = f"WITH changed AS ({sql}), also AS ({also[0]}) SELECT * FROM changed", (*params, *also[1])  # noqa: S608
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall()

    def claimed_in(self, task_id: str, lease: Lease | None = None) -> Self:
        """Open rows that this task holds, from any of its attempts; for its `on_failure`."""
        lease = self._lease(lease)
        return self.filter(lease.open, **{f"{lease.claimed_by}__startswith": f"{task_id}/"})

    def _lease(self, lease: Lease | None) -> Lease:
        return lease or self.model.lease  # type: ignore[attr-defined]


class HasLease(models.Model):
    """A row with leases; the model declares `lease` and its columns."""

    lease: ClassVar[Lease]

    class Meta:
        abstract = True

    def held(self, lease: Lease | None = None) -> Any:
        """Return a queryset of this row, empty if its worker has lost it: every write of a holder uses it."""
        return type(self)._default_manager.all().held([self], lease)  # type: ignore[attr-defined]

    def hold(self, **fields: Any) -> None:
        """Write these fields and extend the lease; in a transaction, this locks the row until the end.

        Raises `LeaseLost`.
        """
        if not self.held().update(**self.lease.until(), **fields):
            raise LeaseLost(f"{self._meta.label} {self.pk} is held by another worker, or has ended.")

    def put_off(self, pause: timedelta, **fields: Any) -> bool:
        """Leave the row to a later attempt; until then only a retry of the same task may claim it.

        False if this worker has lost the lease.
        """
        return bool(self.held().update(**self.lease.until(pause), **fields))

    def finish(self, **fields: Any) -> bool:
        """End the work and set these fields; False if another worker holds the row, or it has ended."""
        return bool(self.held().update(**self.lease.ended(), **fields))


class Leased(HasLease):
    """A row with one lease, and its columns."""

    due_at = models.DateTimeField(null=True, blank=True, help_text="When the sweep queues it again if it is not done.")
    claimed_by = models.CharField(
        max_length=80, blank=True, default="", db_default="", help_text="The task that holds it, and its fencing token."
    )

    class Meta:
        abstract = True


def current_task_id() -> str:
    """Return the id of the current Celery task; empty outside of tasks."""
    return (current_task.request.id or "") if current_task else ""


def token_of(task_id: str) -> str:
    """Return a new fencing token; the task id is no token, since retries and redelivered messages share it."""
    return f"{task_id[:47]}/{uuid.uuid4().hex}"


def _update_sql(rows: models.QuerySet[Any], fields: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    query = cast(UpdateQuery, rows.query.chain(UpdateQuery))
    query.add_update_values(fields)
    return query.get_compiler(rows.db).as_sql()


def _paths(related: object, start: str = "") -> set[str]:
    """Return what a queryset's `select_related` names, as lookups."""
    tree = related if isinstance(related, dict) else {}
    return {start + name for name in tree}.union(*(_paths(tree[name], f"{start}{name}__") for name in tree))


def _keys_by_token(rows: Iterable[models.Model], lease: Lease) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(getattr(row, lease.claimed_by), []).append(row.pk)
    return found
