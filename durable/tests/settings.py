"""The settings of a project that consists of `durable` and the tiny app of its tests.

`DATABASE_URL` is a PostgreSQL that may create databases; the broker is a folder, so the tests need no other server.
"""

import os
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

HOME = Path(os.environ.setdefault("DURABLE_TESTS_HOME", tempfile.mkdtemp(prefix="durable-")))
URL = urlsplit(os.environ["DATABASE_URL"])
# postgres://user@//folder/of/the/socket/name, or postgres://user:password@host:port/name
FOLDER, _, NAME = URL.path.removeprefix("/").rpartition("/")

SECRET_KEY = "only-for-tests"
USE_TZ = True
INSTALLED_APPS = ["django_celery_beat", "django_celery_results", "durable", "durable.tests.jobs"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("DURABLE_TESTS_DATABASE", NAME),
        "USER": unquote(URL.username or ""),
        "PASSWORD": unquote(URL.password or ""),
        "HOST": FOLDER or unquote(URL.hostname or ""),
        "PORT": str(URL.port or ""),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"

CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    name: str(HOME / folder)
    for name, folder in {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}.items()
}
CELERY_RESULT_BACKEND = "django-db"
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_SOFT_TIME_LIMIT, CELERY_TASK_TIME_LIMIT = 20, 30

for folder in ("queue", "control"):
    (HOME / folder).mkdir(exist_ok=True)
