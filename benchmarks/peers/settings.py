"""The shop's settings, and the apps of `django-tasks` where they are installed."""

from importlib.util import find_spec

from myproject.settings import *  # noqa: F403 - Django reads whatever is here

if find_spec("django_tasks_db"):
    INSTALLED_APPS = [*INSTALLED_APPS, "django_tasks", "django_tasks_db"]  # noqa: F405
    TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
# The visibility timeout is short for the benchmark (`celery.py`).
SILENCED_SYSTEM_CHECKS = ["celery.E002"]
