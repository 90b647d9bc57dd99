"""The app's schedules; see `durable/schedules.py` for the rules."""

from datetime import timedelta

from celery.schedules import crontab

from durable.schedules import Schedule

SCHEDULES = {
    "Check pending orders": Schedule("orders.tasks.check_pending_orders", timedelta(seconds=30)),
    "Check pending pictures": Schedule("orders.tasks.check_pending_pictures", timedelta(minutes=1)),
    "Check unfinished imports": Schedule("orders.tasks.check_unfinished_imports", timedelta(minutes=1)),
    "Check unsent digests": Schedule("orders.tasks.check_unsent_digests", timedelta(minutes=5), 290),
    "Sync inventory": Schedule(
        "orders.tasks.sync_inventory", crontab(minute="0", hour="9-17", day_of_week="mon-fri"), 1800
    ),
    "Clear old events": Schedule("orders.tasks.clear_old_events", crontab(hour="3", minute="50"), 3600),
    "Clear old files": Schedule("orders.tasks.clear_old_files", crontab(hour="3", minute="55"), 3600),
    # Until Monday is over: a worker that was away on the morning still sends them.
    "Weekly digest": Schedule(
        "orders.tasks.send_weekly_digest", crontab(hour="9", minute="0", day_of_week="mon"), 14 * 3600
    ),
}
