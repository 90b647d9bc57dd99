"""Runs of tasks that did something, for the pages that show what happens behind a click."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Self

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import connection, models
from django.db.models import Q

# One statement, and one commit that does not wait for the disk: a run that a power failure forgets harms nobody.
INSERT = """
WITH hurry AS (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO myproject_run ({columns}) SELECT {values} FROM hurry
"""


class RunQuerySet(models.QuerySet["Run"]):
    def concerning(self, labels: Iterable[str]) -> Self:
        """Runs that claimed one of the rows with these labels (`durable.trace.label_of`), oldest first."""
        return self.filter(about__overlap=[*labels]).order_by("started_at", "pk")

    def record(self, **fields: Any) -> None:
        # Without the type it would be text, which no column of the table is made of by itself.
        types = {"about": "varchar[]", "calls": "jsonb"}
        values = (f"%({name})s::{types[name]}" if name in types else f"%({name})s" for name in fields)
        statement = INSERT.format(columns=", ".join(fields), values=", ".join(values))
        with connection.cursor() as cursor:
            cursor.execute(statement, fields)

    def older(self, rows_before: datetime, others_before: datetime) -> Self:
        """Runs that worked on rows before the first moment, and those that found nothing to do before the second."""
        return self.filter(Q(ended_at__lt=rows_before) | Q(ended_at__lt=others_before, about=[]))


class Run(models.Model):
    """One attempt of a task: where it waited, where it ran, on which rows it worked, and what it asked for outside."""

    task_id = models.CharField(max_length=64)
    task = models.CharField(max_length=120)
    attempt = models.PositiveSmallIntegerField(help_text="From 1.")
    state = models.CharField(max_length=10)
    why = models.CharField(max_length=300, blank=True, help_text="Why it failed, or is tried again.")
    request_id = models.CharField(max_length=64, blank=True, help_text="Of the request that queued it.")
    trace_id = models.CharField(
        max_length=32, blank=True, default="", db_default="", help_text="Of OpenTelemetry, where it is on."
    )
    path = models.CharField(max_length=120, blank=True, help_text="What the web was asked for.")
    clicked_at = models.DateTimeField(null=True, help_text="When the web received that.")
    queue = models.CharField(max_length=50)
    worker = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    sent_at = models.DateTimeField(help_text="When the message was sent, or when it was to be delivered.")
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    is_periodic = models.BooleanField()
    about = ArrayField(models.CharField(max_length=80))
    calls = models.JSONField(
        help_text="What was asked for outside, about which row, when, for how long, and whether in vain."
    )

    objects = RunQuerySet.as_manager()

    class Meta:
        indexes = [
            GinIndex(fields=["about"], name="run_about"),
            models.Index(fields=["ended_at"], name="run_ended_at"),
            models.Index(fields=["task", "ended_at"], name="run_of_task"),
        ]

    def __str__(self) -> str:
        return f"{self.task}, attempt {self.attempt}"
