"""Each variable that can hold a secret holds a marker, and whatever a process shows or tells is searched for it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from celery.worker.control import Panel
from django.conf import settings
from django.db import connection

from myproject import embedded, tasks
from myproject.celery import app
from myproject.logs.secrets import secrets_in
from tests.broker import Broker
from tests.factories import make_user
from tests.operations.test_sentry import Sentry
from tests.ports import free_port
from tests.production import Web
from tests.running import LOG, running
from tests.shop import answers, wait_for
from tests.test_env_example import example
from tests.test_headers import sign_in

pytest_plugins = ["tests.broker", "tests.operations.test_sentry"]
pytestmark = pytest.mark.attack

# What can hold no secret although it is called so: what everybody is told, or the name of a file.
OPEN = {
    "SITE_URL",
    "FLOWER_URL",
    "LIVE_URL",
    "SANDBOX_URL",
    "SANDBOX_SHOP_URL",
    "SANDBOX_WEBHOOK_URL",
    "CELERY_SECURITY_KEY",
}
SECRET = {name for name in example() if re.search("KEY|SECRET|TOKEN|PASSWORD|URL|DSN|BACKEND|BASE$", name)} - OPEN


def marker(name: str) -> str:
    return f"hush4{name.replace('_', '').lower()}7hush"


@contextmanager
def guarded_redis(folder: Path) -> Iterator[int]:
    """Run a Redis that wants the password of the broker, which is that of the results too."""
    port, password = free_port(), marker("CELERY_BROKER_URL")
    options = f"--port {port} --bind 127.0.0.1 --requirepass {password} --dir {folder} --save".split()
    with subprocess.Popen([embedded._redis_server(), *options, ""], stdout=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.terminate()


def variables(redis: int, sentry: Sentry) -> dict[str, str]:
    database = embedded.database_url(settings.VAR_DIR, connection.settings_dict["NAME"])
    whole = {name: marker(name) for name in SECRET}
    of_broker = whole["CELERY_BROKER_URL"]
    addresses = {
        "DATABASE_URL": database.replace("postgres@", f"postgres:{whole['DATABASE_URL']}@"),
        "CELERY_BROKER_URL": f"redis://:{of_broker}@127.0.0.1:{redis}/0",
        "CELERY_RESULT_BACKEND": f"redis://:{of_broker}@127.0.0.1:{redis}/1",
        "SENTRY_DSN": sentry.dsn.replace("key@", f"{whole['SENTRY_DSN']}@"),
        "STORAGE_URL": f"s3://{whole['STORAGE_URL']}id:{whole['STORAGE_URL']}@127.0.0.1:9/bucket",
        "EMAIL_URL": f"smtp://user:{whole['EMAIL_URL']}@127.0.0.1:9",
        "ALERT_URLS": f"json://127.0.0.1:9/{whole['ALERT_URLS']}/chat",
    }
    for name in ("CRM_URL", "WAREHOUSE_URL", "STRIPE_API_BASE"):
        addresses[name] = f"http://user:{whole[name]}@127.0.0.1:9"
    return whole | addresses


def run(command: str, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *command.split(maxsplit=2)], env=env, capture_output=True, text=True)
    return done.stdout + done.stderr


DEBUG_PAGE = """import os, sys, django; django.setup()
from django.test import RequestFactory
from django.views.debug import ExceptionReporter
try:
    url = os.environ["SITE_URL"] and {}["missing"]
except KeyError:
    # What `runserver` gives each request: the whole environment.
    reporter = ExceptionReporter(RequestFactory().get("/", **os.environ), *sys.exc_info())
    print(reporter.get_traceback_html(), reporter.get_traceback_text())
"""


def commands(env: dict[str, str]) -> Iterator[tuple[str, str]]:
    debug = env | {"DEBUG": "true", "DJANGO_SETTINGS_MODULE": "myproject.settings", "SITE_URL": "http://x"}
    page = subprocess.run([sys.executable, "-c", DEBUG_PAGE], env=debug, capture_output=True, text=True)
    assert "missing" in page.stdout, page.stderr
    yield "the page that DEBUG shows", page.stdout
    yield "celery report", run("-m celery -A myproject report", env)
    yield "celery inspect conf", run("-m celery -A myproject inspect conf", env)
    yield "checks", run("manage.py check --deploy", env)


def asked_of_the_worker() -> Iterator[tuple[str, str]]:
    """Yield what the worker answers to each command that only asks."""
    assert "pong" in str(app.control.broadcast("ping", reply=True, timeout=10, limit=1))
    skipped = {"objgraph", "memdump", "memsample"}
    for name in sorted({name for name, meta in Panel.meta.items() if meta.type == "inspect"} - skipped):
        given = {"query_task": {"ids": ["x"]}, "conf": {"with_defaults": True}, "hello": {"from_node": "x"}}
        told = app.control.broadcast(name, arguments=given.get(name, {}), reply=True, timeout=10, limit=1)
        yield f"inspect {name}", repr(told)


def shown_by_flower(port: int, task_id: str, web: Web) -> Iterator[tuple[str, str]]:
    browser, url = requests.Session(), f"http://127.0.0.1:{port}"
    boss = sign_in(web, make_user(is_staff=True, is_superuser=True))
    way = str(web.get("/flower/", Cookie=boss).headers["Location"])
    browser.get(f"{url}/login?{urlsplit(way).query}", timeout=30)
    wait_for(lambda: browser.get(f"{url}/api/workers?refresh=1", timeout=30).json(), "Flower to know the worker")
    [worker] = browser.get(f"{url}/api/workers?refresh=1", timeout=30).json()
    pages = ["/", "/workers", f"/worker/{worker}", "/tasks", f"/task/{task_id}", "/broker", "/metrics"]
    for path in [*pages, "/api/workers?refresh=1", "/api/tasks", f"/api/task/info/{task_id}", "/api/queues/length"]:
        yield f"Flower's {path}", browser.get(url + path, timeout=30).text


def shown_by_the_web(web: Web) -> Iterator[tuple[str, str]]:
    boss = sign_in(web, make_user(is_staff=True, is_superuser=True))
    lists = ["django_celery_results/taskresult", "myproject/alert", "django_celery_beat/periodictask", "accounts/user"]
    for path in [
        "/",
        "/nothing/",
        "/dashboard/",
        "/dashboard/queues/",
        "/admin/",
        *(f"/admin/{name}/" for name in lists),
    ]:
        yield path, web.get(path, Cookie=boss).text
    yield "/metrics", web.get("/metrics", Authorization=f"Bearer {marker('METRICS_TOKEN')}").text
    yield "a bad request", web.ask("GET", "/?x=%00", {"Host": "elsewhere"}).text


def test_secrets_of_opentelemetry_are_known() -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:of-endpoint@traces.example.com",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20of-header,api-key=of-another",
    }

    assert set(secrets_in(variables)) == {"of-endpoint", "of-header", "of-another"}


@pytest.mark.timeout(400)
def test_no_secret_is_shown_or_told(transactional_db: None, broker: Broker, sentry: Sentry, tmp_path: Path) -> None:
    LOG_START = LOG.stat().st_size if LOG.exists() else 0
    found: dict[str, str] = {}
    with guarded_redis(tmp_path) as redis:
        # Logs say most at this level, those of the libraries too.
        secret = variables(redis, sentry) | {"LOG_LEVEL": "DEBUG", "LOG_FORMAT": "json"}
        flower = free_port()
        production = secret | {
            "DEBUG": "false",
            "HTTPS": "false",
            "ALLOWED_HOSTS": "x",
            "PORT_OFFSET": str(flower - 5555),
        }
        broker.use(secret["CELERY_BROKER_URL"])
        with (
            running("celery -A myproject worker --concurrency 1", **production),
            running("celery -A myproject flower", **production),
            Web(tmp_path, collected=True, **secret) as web,
        ):
            wait_for(lambda: app.control.ping(timeout=1, limit=1), "the worker")
            wait_for(lambda: answers(f"http://127.0.0.1:{flower}/healthcheck"), "Flower")
            task_id = tasks.fail.delay().id
            wait_for(lambda: sentry.of_task(task_id), "the event of the task")
            env = os.environ | production
            for door in (asked_of_the_worker(), shown_by_flower(flower, task_id, web), shown_by_the_web(web)):
                found |= dict(door)
            found |= dict(commands(env))
    found["Sentry"] = json.dumps(sentry.events)
    found["logs"] = LOG.read_bytes()[LOG_START:].decode(errors="replace") + web.log.read_text()

    assert len(SECRET) >= 16
    assert {door for door, text in found.items() if not text} == set()
    told = {door: [name for name in SECRET if marker(name) in text] for door, text in found.items()}
    assert {door: names for door, names in told.items() if names} == {}
