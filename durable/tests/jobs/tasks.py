import time
from datetime import timedelta

from celery import shared_task
from django.db.models import F

from durable.schedules import Schedule
from durable.sweeps import Sweep, sweep
from durable.tests.settings import HOME

from .models import Job


@shared_task
def finish_job(*, job_id: int) -> None:
    """Do the job. Safe to repeat: it is claimed, and its effect is written with its end."""
    for job in Job.objects.claim(first=Job.objects.filter(pk=job_id)):
        if job.attempts == 1 and (HOME / "slow").exists():
            (HOME / "claimed").touch()
            time.sleep(15)
        job.finish(is_done=True, effects=F("effects") + 1)


def give_up() -> None:
    Job.objects.exhausted().finish(is_done=True, has_failed=True)


@sweep(Schedule("durable.tests.jobs.tasks.check_jobs", timedelta(seconds=60)))
def check_jobs() -> list[Sweep]:
    """Queue again what was left behind. Safe to repeat: so is each job."""
    return [Sweep(Job.objects.due().order_by("pk"), finish_job, "job_id", limit=2, give_up=give_up)]


@sweep(Schedule("durable.tests.jobs.tasks.check_broken_jobs_first", timedelta(seconds=60)))
def check_broken_jobs_first() -> list[Sweep]:
    """Queue again what was left behind, after a sweep that fails. Safe to repeat: so is each job."""
    broken = Sweep([], finish_job, "job_id", give_up=lambda: 1 / 0)
    return [broken, Sweep(Job.objects.due().order_by("pk"), finish_job, "job_id")]
