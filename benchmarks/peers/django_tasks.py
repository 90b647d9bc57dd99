from django_tasks import task

from . import work

NEEDS = "leaves a dead worker's tasks *running*; a sweep"
WORKERS = ["manage.py db_worker --queue-name * --interval 0.1 --no-startup-delay"] * 2
REDELIVERS = 0


@task()
def process(order_id: int) -> None:
    work.process(order_id)


def enqueue(order_id: int) -> None:
    process.enqueue(order_id)


def waiting() -> int:
    return work.count("SELECT count(*) FROM django_tasks_database_dbtaskresult WHERE status IN ('READY', 'RUNNING')")
