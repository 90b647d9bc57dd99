"""The Celery app of the tests: `celery -A durable.tests.celery worker`."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "durable.tests.settings")

from celery import Celery

from durable.task import Task

app = Celery("jobs", task_cls=Task)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.set_default()
