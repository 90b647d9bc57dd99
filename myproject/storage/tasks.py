"""The clean-ups of tables that belong to no app of the shop."""

from datetime import timedelta

from celery import shared_task
from django.contrib.sessions.models import Session
from django.utils import timezone
from django_celery_results.models import GroupResult, TaskResult

from myproject.storage.clean_ups import CLEAR_LIMITS, delete_in_chunks, going_on_next_night

RESULTS_KEPT = timedelta(days=7)


@shared_task(name="myproject.tasks.clear_task_results", **CLEAR_LIMITS, ignore_result=True)
def clear_task_results() -> None:
    """Delete the results of old tasks and groups. Safe to repeat: what is gone is gone."""
    with going_on_next_night("results"):
        for model in (TaskResult, GroupResult):
            delete_in_chunks(model.objects.filter(date_done__lt=timezone.now() - RESULTS_KEPT).order_by("date_done"))


@shared_task(name="myproject.tasks.clear_sessions", **CLEAR_LIMITS, ignore_result=True)
def clear_sessions() -> None:
    """Delete expired sessions. Safe to repeat: what is gone is gone."""
    with going_on_next_night("sessions"):
        delete_in_chunks(Session.objects.filter(expire_date__lt=timezone.now()).order_by("expire_date"))
