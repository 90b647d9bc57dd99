"""The app's schedules; see `durable/schedules.py` for the rules."""

from datetime import timedelta

from celery.schedules import crontab

from durable.schedules import Schedule

SCHEDULES = {
    "Check unsent mail": Schedule("accounts.tasks.check_unsent_mail", timedelta(minutes=1)),
    "Check unsynced contacts": Schedule("accounts.tasks.check_unsynced_contacts", timedelta(minutes=1)),
    "Clear old mail": Schedule("accounts.tasks.clear_old_mail", crontab(hour="3", minute="40"), 3600),
    "Catch up with CRM": Schedule("accounts.tasks.catch_up_with_crm", crontab(hour="4", minute="0"), 3600),
}
