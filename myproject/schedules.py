"""The app's schedules; see `durable/schedules.py` for the rules."""

from datetime import timedelta

from celery.schedules import crontab

from durable.schedules import Schedule
from myproject.queues import QUEUES

SCHEDULES = {
    "Heartbeat": Schedule("myproject.tasks.heartbeat", timedelta(minutes=1)),
    # Sent by beat itself, so that one queue that stands still hides no other. They expire late: a queue that is an hour
    # behind should say so.
    **{
        f"Canary of {queue}": Schedule("myproject.tasks.canary", timedelta(minutes=1), 3600, {"queue": queue}, queue)
        for queue in QUEUES
    },
    "Check unsent alerts": Schedule("myproject.tasks.check_unsent_alerts", timedelta(minutes=1)),
    "Clear task results": Schedule("myproject.tasks.clear_task_results", crontab(hour="3", minute="10"), 3600),
    "Clear sessions": Schedule("myproject.tasks.clear_sessions", crontab(hour="3", minute="20"), 3600),
    "Clear old alerts": Schedule("myproject.tasks.clear_old_alerts", crontab(hour="3", minute="25"), 3600),
}
