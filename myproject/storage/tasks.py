"""The clean-ups of tables that belong to no app of the shop."""

from datetime import timedelta

from celery import shared_task
from django.contrib.sessions.models import Session
from django.utils import timezone
from django_celery_results.models import GroupResult, TaskResult

from myproject.storage.clean_ups import CLEAR_LIMITS, delete_in_chunks, going_on_next_night
from myproject.traces.models import Run

RESULTS_KEPT = timedelta(days=7)
# Runs that worked on a row, and those of schedules that found nothing to do.
RUNS_KEPT, IDLE_KEPT = timedelta(days=31), timedelta(days=1)


@shared_task(name="myproject.tasks.clear_task_results", **CLEAR_LIMITS, ignore_result=True)
def clear_task_results() -> None:
    """Delete results and records of old tasks and groups. Safe to repeat: what is gone is gone."""
    with going_on_next_night("results"):
        for model in (TaskResult, GroupResult):
            delete_in_chunks(model.objects.filter(date_done__lt=timezone.now() - RESULTS_KEPT).order_by("date_done"))
        old = Run.objects.older(timezone.now() - RUNS_KEPT, timezone.now() - IDLE_KEPT)
        delete_in_chunks(old.order_by("ended_at"))


@shared_task(name="myproject.tasks.clear_sessions", **CLEAR_LIMITS, ignore_result=True)
def clear_sessions() -> None:
    """Delete expired sessions. Safe to repeat: what is gone is gone."""
    with going_on_next_night("sessions"):
        delete_in_chunks(Session.objects.filter(expire_date__lt=timezone.now()).order_by("expire_date"))
