"""The app's schedules; see `durable/schedules.py` for the rules."""

from datetime import timedelta

from celery.schedules import crontab

from durable.schedules import Schedule

SCHEDULES = {
    "Check unfinished reports": Schedule("reports.tasks.check_unfinished_reports", timedelta(seconds=20), 18),
    "Check unfinished erasures": Schedule("reports.tasks.check_unfinished_erasures", timedelta(minutes=1)),
    "Update daily sales": Schedule("reports.tasks.update_daily_sales", timedelta(minutes=1)),
    "Check due report schedules": Schedule("reports.tasks.check_due_schedules", timedelta(minutes=1)),
    "Check unfinished packs": Schedule("reports.tasks.check_unfinished_packs", timedelta(minutes=1)),
    "Clear old reports": Schedule("reports.tasks.clear_old_reports", crontab(hour="3", minute="30"), 3600),
}
