"""Events that the real SDK of real processes sends to a server of the test's own."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from django.conf import settings
from django.db import connection
from django_celery_results.models import TaskResult

from accounts.models import User
from myproject import tasks
from tests.factories import PASSWORD, make_user
from tests.shop import Shop, wait_for

pytestmark = pytest.mark.operations


class Sentry(ThreadingHTTPServer):
    """Takes envelopes, as Sentry does, and keeps their events."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Envelopes)
        self.events: list[dict[str, Any]] = []
        self.dsn = f"http://key@127.0.0.1:{self.server_port}/1"

    def of_task(self, task_id: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["tags"].get("task_id") == task_id]


class Envelopes(BaseHTTPRequestHandler):
    server: Sentry

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        parts = [json.loads(line) for line in body.splitlines() if line]
        self.server.events += [part for part in parts if "event_id" in part and "exception" in part]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    with Sentry() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def kind_of(event: dict[str, Any]) -> str:
    return str(event["exception"]["values"][-1]["type"])


def log_in(person: User) -> requests.Session:
    session, page = requests.Session(), f"{settings.SITE_URL}/accounts/login/"
    session.get(page, timeout=30)
    token = {"csrfmiddlewaretoken": session.cookies["csrftoken"]}
    session.post(page, token | {"login": person.email, "password": PASSWORD}, timeout=30)
    return session


@pytest.mark.timeout(240)
def test_failing_task_and_failing_view_each_send_one_event(shop: Shop, sentry: Sentry, tmp_path: Path) -> None:
    staff = make_user(name="Aurelia Quennell", is_staff=True, is_superuser=True)
    with shop.started_anew(tmp_path / "log", "web", "worker", SENTRY_DSN=sentry.dsn), connection.cursor() as cursor:
        failed, mended = tasks.fail.delay(), tasks.fail_twice.delay()
        session = log_in(staff)
        # What the first page of the admin reads, and nothing else does.
        cursor.execute("ALTER TABLE django_admin_log RENAME TO away")
        page = f"{settings.SITE_URL}/admin/?of={staff.email}"
        answer = session.get(page, headers={"X-Request-ID": "the-click-that-fails"}, timeout=30)
        cursor.execute("ALTER TABLE away RENAME TO django_admin_log")
        wait_for(TaskResult.objects.filter(task_id=mended.id, status="SUCCESS").exists, "the third attempt")
        wait_for(lambda: sentry.of_task(failed.id), "the event of the task")
        wait_for(lambda: any(kind_of(event) == "ProgrammingError" for event in sentry.events), "that of the view")

    assert answer.status_code == 500
    assert len(sentry.events) == 2
    assert [kind_of(event) for event in sentry.of_task(failed.id)] == ["PermanentError"]
    assert sentry.of_task(failed.id)[0]["tags"]["task"] == tasks.fail.name
    [of_view] = [event for event in sentry.events if kind_of(event) == "ProgrammingError"]
    assert of_view["tags"]["request_id"] == "the-click-that-fails"
    assert (of_view["transaction"], of_view["request"]) == ("/admin/", {"method": "GET"})
    sent = json.dumps(sentry.events).lower()
    private = [*staff.name.lower().split(), staff.email, PASSWORD, *session.cookies.values()]
    assert [word for word in private if word.lower() in sent] == []


def run(script: str, dsn: str) -> str:
    """Run the script in a process of its own, with Django ready; return what it prints."""
    command = [sys.executable, "-c", f"import django; django.setup(); {script}"]
    env = os.environ | {"SENTRY_DSN": dsn}
    return subprocess.run(command, cwd=settings.BASE_DIR, env=env, capture_output=True, text=True, check=True).stdout


def test_task_whose_process_died_sends_one_event(sentry: Sentry) -> None:
    """The worker's main process tells of it, where the SDK's own integration does not look."""
    signal = "signals.task_failure.send(sender=wait, task_id='the-task', exception=TimeLimitExceeded(30))"
    imports = "from celery import signals; from billiard.exceptions import TimeLimitExceeded"
    # Celery sends it once more when the process is gone, and knows the request by then.
    again = f"wait.push_request(id='the-task'); {signal}"
    run(f"{imports}; from myproject.tasks import wait; {signal}; {again}", sentry.dsn)

    wait_for(lambda: sentry.events, "the event")

    [event] = sentry.events
    assert (kind_of(event), event["tags"]["task_id"]) == ("TimeLimitExceeded", "the-task")
    assert event["tags"]["task"] == tasks.wait.name


def test_sentry_is_not_even_loaded_where_no_variable_names_one() -> None:
    loaded = [
        run("import sys; print('sentry_sdk' in sys.modules)", dsn).strip() for dsn in ("", "http://key@127.0.0.1:9/1")
    ]

    assert loaded == ["False", "True"]
