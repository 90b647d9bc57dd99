from datetime import timedelta

from durable.schedules import Schedule

SCHEDULES = {"Check inquiries": Schedule("inquiries.tasks.check_inquiries", timedelta(minutes=1))}
