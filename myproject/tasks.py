"""Where Celery looks for the tasks of this app; each stands beside what it calls.

They keep the names under which they were registered here, `myproject.tasks.…`: rows of django-celery-beat, messages on
their way and the workers of the previous release know no others.
"""

from myproject.alerting.tasks import check_unsent_alerts, clear_old_alerts, send_alert
from myproject.monitoring.tasks import canary, heartbeat
from myproject.storage.tasks import clear_sessions, clear_task_results
from myproject.try_it.tasks import add, fail, fail_twice, multiply, progress, total, wait

__all__ = [
    "add",
    "canary",
    "check_unsent_alerts",
    "clear_old_alerts",
    "clear_sessions",
    "clear_task_results",
    "fail",
    "fail_twice",
    "heartbeat",
    "multiply",
    "progress",
    "send_alert",
    "total",
    "wait",
]
