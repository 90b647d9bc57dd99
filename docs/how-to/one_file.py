"""Django and Celery in one file.

pip install django "celery[redis]" django-celery-results
python one_file.py migrate
python one_file.py runserver
celery -A one_file worker -l INFO
"""

import os
import sys
from pathlib import Path

import django
from celery import Celery
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path

settings.configure(
    DEBUG=True,
    SECRET_KEY="not-secret-and-only-for-development",
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django_celery_results"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("ONE_FILE_DATABASE", Path(__file__).with_suffix(".sqlite3")),
        }
    },
    CELERY_BROKER_URL=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0"),
    # Without these a page waits forever when Redis is frozen.
    CELERY_BROKER_TRANSPORT_OPTIONS={"socket_timeout": 2, "socket_connect_timeout": 2},
    CELERY_RESULT_BACKEND="django-db",
    CELERY_TASK_SOFT_TIME_LIMIT=20,
    CELERY_TASK_TIME_LIMIT=30,
)
django.setup()

# Its name is that of the file: run as a program, the file is called `__main__`, and its tasks must not be.
app = Celery("one_file")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task
def add(x: int, y: int) -> int:
    return x + y


def index(request: HttpRequest) -> HttpResponse:
    sent = add.delay(2, 3)
    return redirect("result", task_id=sent.id)


def result(request: HttpRequest, task_id: str) -> HttpResponse:
    found = app.AsyncResult(task_id)
    return HttpResponse(f"{found.state}: {found.result}", content_type="text/plain")


urlpatterns = [path("", index), path("<uuid:task_id>/", result, name="result")]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
