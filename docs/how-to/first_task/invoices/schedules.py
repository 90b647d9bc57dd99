from datetime import timedelta

from durable.schedules import Schedule

SCHEDULES = {"Check invoices": Schedule("invoices.tasks.check_invoices", timedelta(minutes=1))}
