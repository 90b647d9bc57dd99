"""Django's own tasks under a kill -9, as they are and with a lease of `durable/` beneath them.

pip install "django==6.0.*" django-tasks-db "psycopg[binary]" celery
DATABASE_URL=postgres://… python docs/how-to/tasks_of_django.py
"""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import django
from django.conf import settings
from django.core.management import execute_from_command_line

# The repository, of which only `durable/` is used.
sys.path.insert(0, str(Path(__file__).parents[2]))
address = urlsplit(os.environ["DATABASE_URL"])
server = {
    "USER": address.username,
    "PASSWORD": address.password or "",
    "HOST": unquote(address.hostname or ""),
    "PORT": address.port or "",
}
settings.configure(
    USE_TZ=True,
    INSTALLED_APPS=["django_tasks_db"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": address.path.strip("/"), **server}},
    TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
)
django.setup()

from django.db import connection, models, transaction
from django.db.models import Q
from django.tasks import task
from django_tasks_db.models import DBTaskResult

from durable.leases import Lease, Leased, LeasedQuerySet

SECONDS = 3


class Job(Leased):
    """Work that must end: the row is the truth, and a task only says that there is one."""

    done = models.BooleanField(default=False)
    lease = Lease(open=Q(done=False), lasts=lambda: timedelta(seconds=5))
    objects = LeasedQuerySet.as_manager()

    class Meta:
        app_label = "jobs"


@task
def work() -> None:
    time.sleep(SECONDS)


@task
def fail() -> None:
    raise ConnectionError("The provider does not answer.")


@task
def work_on(job_id: int) -> None:
    """Safe to repeat: a second worker claims nothing, and one that was overtaken writes nothing."""
    for job in Job.objects.claim(first=Job.objects.filter(pk=job_id)):
        time.sleep(SECONDS)
        job.finish(done=True)


def sweep() -> None:
    """Queue again what is overdue; a scheduler must call this, which Django does not have."""
    for pk in Job.objects.due().values_list("pk", flat=True):
        work_on.enqueue(pk)


def kill_in_the_middle() -> None:
    worker = start_worker()
    while DBTaskResult.objects.ready().exists():
        time.sleep(0.1)
    worker.send_signal(signal.SIGKILL)
    worker.wait()


def start_worker() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "db_worker", "--no-startup-delay", "--no-reload"])


def states() -> list[str]:
    rows = DBTaskResult.objects.order_by("enqueued_at")
    return [f"{row.task_path.rpartition('.')[2]}: {row.status}" for row in rows]


def main() -> None:
    execute_from_command_line([__file__, "migrate", "--verbosity=0"])
    with connection.schema_editor() as editor:
        editor.create_model(Job)
    with transaction.atomic():
        work.enqueue()
        transaction.set_rollback(True)
    print("After a rollback:", states())
    job = Job.objects.create(**Job.lease.fresh())
    for each in (lambda: work.enqueue(), lambda: work_on.enqueue(job.pk)):
        each()
        kill_in_the_middle()
    fail.enqueue()
    worker = start_worker()
    end = time.monotonic() + 15
    while time.monotonic() < end:
        sweep()
        time.sleep(1)
    worker.terminate()
    job.refresh_from_db()
    print("After two kill -9 and a quarter of a minute:", states(), "The row is done:", job.done)


if __name__ == "__main__":
    # The worker runs the same file, so that `__main__` is the module of the tasks there as well.
    if sys.argv[1:]:
        execute_from_command_line(sys.argv)
    else:
        main()
