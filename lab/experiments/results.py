"""Results, and what is asked of them."""

import uuid
from datetime import timedelta

from celery import Celery
from celery.app.backends import by_url
from django.conf import settings
from django.test import Client, override_settings
from django.utils import timezone
from django_celery_results.models import TaskResult

from lab import rows
from lab.arena import NAIVE, OURS, Arena
from lab.experiment import Numbers, Side, at_least, exactly, experiment
from lab.naive import results as naive
from lab.naive import workers as naive_workers
from myproject.storage import tasks as storage
from myproject.tasks import clear_task_results, heartbeat
from orders import views

SIGNS = 60
OLD = timedelta(days=8)


def grow_old(lab: Arena) -> None:
    lab.until(lambda: TaskResult.objects.filter(status="SUCCESS").count() >= SIGNS, "all results")
    TaskResult.objects.update(date_done=timezone.now() - OLD)
    lab.say("Eight days pass.", rows=SIGNS)


def naive_kept(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    for number in range(SIGNS):
        naive_workers.take.delay(str(number), 0)
    lab.say("A small task runs each minute, for an hour.", asked=SIGNS)
    grow_old(lab)
    lab.watch(2, lambda: {"rows": TaskResult.objects.count()})
    return lab.numbers


def ours_kept(lab: Arena) -> Numbers:
    lab.common(OURS)
    for _ in range(SIGNS):
        heartbeat.delay()
    lab.say("A small task runs each minute, for an hour.", asked=SIGNS)
    grow_old(lab)
    clear_task_results.delay()
    lab.say("The clean-up of the night is queued.")
    lab.until(lambda: not TaskResult.objects.exists(), "the clean-up")
    return lab.count(rows=TaskResult.objects.count())


experiment(
    "results-nobody-deletes",
    "A task each minute, as a sign of life",
    practice="Store every result in the Django database.",
    fault="Time passes.",
    naive=Side(naive_kept, (naive_workers.take,), "@app.task", {"asked": exactly(SIGNS), "rows": at_least(SIGNS)}),
    ours=Side(
        ours_kept,
        (storage.clear_task_results,),
        "delete_in_chunks",
        {"asked": exactly(SIGNS), "rows": exactly(0)},
    ),
    why="Half a million rows a year, of a task that adds two numbers. Ours stores results only where somebody reads "
    "them (`ignore_result`), and deletes old ones in chunks each night.",
    answers=("myproject/storage/tasks.py · clear_task_results", "myproject/monitoring/tasks.py · heartbeat"),
    test="tests/test_clean_ups.py",
    docs="decisions/0006-results-are-not-shown.md",
)

RESULTS = 400
# As the tutorials make it: Django keeps 300 entries unless told otherwise.
SMALL = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache_of_results"}


def forgotten(lab: Arena, backend: str) -> Numbers:
    app = Celery("forgetful", broker=settings.CELERY_BROKER_URL, set_as_current=False)
    app.conf.cache_backend = "tutorial"
    # By its name: a variable of the environment is preferred to what an app is given.
    kind, url = by_url(backend, app.loader)
    store = kind(app=app, url=url)
    ids = [uuid.uuid4().hex for _ in range(RESULTS)]
    for task_id in ids:
        store.store_result(task_id, "done", "SUCCESS")
    lab.say(f"{RESULTS:,} tasks have stored their results.", asked=RESULTS)
    kept = sum(store.get_task_meta(task_id)["status"] == "SUCCESS" for task_id in ids)
    lab.say(f"{kept:,} of them can be read.")
    return lab.count(lost=RESULTS - kept)


def naive_cache(lab: Arena) -> Numbers:
    with override_settings(CACHES={**settings.CACHES, "tutorial": SMALL}):
        return forgotten(lab, naive.CacheSettings.CELERY_RESULT_BACKEND)


def ours_cache(lab: Arena) -> Numbers:
    return forgotten(lab, "django-db")


experiment(
    "cache-as-result-backend",
    "CELERY_RESULT_BACKEND = 'django-cache'",
    practice="Keep results in Django's cache, made by createcachetable.",
    fault=f"{RESULTS:,} tasks run.",
    naive=Side(naive_cache, (naive.CacheSettings,), "MAX_ENTRIES", {"asked": exactly(RESULTS), "lost": at_least(50)}),
    ours=Side(
        ours_cache,
        ("CELERY_CACHE_BACKEND", "CACHES"),
        "cache_of_results",
        {"asked": exactly(RESULTS), "lost": exactly(0)},
    ),
    why="A cache may forget whenever it likes, and Django's in the database does beyond 300 entries. Ours stores "
    "results in their own table for a week; where a cache must be, it has a table and a size of its own.",
    answers=("myproject/settings.py · CACHES", "myproject/settings.py · CELERY_CACHE_BACKEND"),
    test="tests/test_results.py",
    docs="operations/brokers.md",
)


def naive_pending(lab: Arena) -> Numbers:
    answer = naive.status(str(uuid.uuid4()))
    lab.say(f"Somebody asks for an id that never was: {answer['state']}.", asked=1)
    return lab.count(waiting=int(answer["state"] == "PENDING"))


def ours_pending(lab: Arena) -> Numbers:
    with override_settings(ALLOWED_HOSTS=["testserver"]):
        client = Client()
        client.force_login(rows.person())
        answer = client.get("/orders/0000-0000/status/")
    lab.say(f"Somebody asks for an order that never was: {answer.status_code}.", asked=1)
    return lab.count(waiting=int(answer.status_code == 200))


experiment(
    "pending-forever",
    "A view that answers with AsyncResult(task_id).state",
    practice="Show the visitor what Celery knows of a task.",
    fault="The id never existed; or its message was lost; or its result was deleted.",
    naive=Side(naive_pending, (naive.status,), "AsyncResult(task_id", {"asked": exactly(1), "waiting": exactly(1)}),
    ours=Side(ours_pending, (views.order_status,), "def order_status", {"asked": exactly(1), "waiting": exactly(0)}),
    why="Celery says PENDING of whatever it does not know, and anyone who has an id reads another person's result. "
    "Ours shows the status of a row, to the person whose row it is.",
    answers=("myproject/try_it/page.py · remembered", "reports/views.py · report_status"),
    test="tests/test_try_it.py",
    docs="decisions/0006-results-are-not-shown.md",
)
