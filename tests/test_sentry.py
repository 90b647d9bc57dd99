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
    with shop.started_anew(tmp_path / "log", SENTRY_DSN=sentry.dsn), connection.cursor() as cursor:
        failed, mended = tasks.fail.delay(), tasks.fail_twice.delay()
        killed = tasks.wait.apply_async(kwargs={"seconds": 15}, time_limit=1, soft_time_limit=None)
        session = log_in(staff)
        # What the first page of the admin reads, and nothing else does.
        cursor.execute("ALTER TABLE django_admin_log RENAME TO away")
        page = f"{settings.SITE_URL}/admin/?of={staff.email}"
        answer = session.get(page, headers={"X-Request-ID": "the-click-that-fails"}, timeout=30)
        cursor.execute("ALTER TABLE away RENAME TO django_admin_log")
        wait_for(TaskResult.objects.filter(task_id=mended.id, status="SUCCESS").exists, "the third attempt")
        wait_for(lambda: sentry.of_task(failed.id) and sentry.of_task(killed.id), "the events of the tasks")
        wait_for(lambda: any(kind_of(event) == "ProgrammingError" for event in sentry.events), "that of the view")

    assert answer.status_code == 500
    assert len(sentry.events) == 3
    assert [kind_of(event) for event in sentry.of_task(failed.id)] == ["PermanentError"]
    assert [kind_of(event) for event in sentry.of_task(killed.id)] == ["TimeLimitExceeded"]
    assert sentry.of_task(failed.id)[0]["tags"]["task"] == tasks.fail.name
    [of_view] = [event for event in sentry.events if kind_of(event) == "ProgrammingError"]
    assert of_view["tags"]["request_id"] == "the-click-that-fails"
    assert (of_view["transaction"], of_view["request"]) == ("/admin/", {"method": "GET"})
    sent = json.dumps(sentry.events).lower()
    private = [*staff.name.lower().split(), staff.email, PASSWORD, session.cookies["sessionid"], "csrftoken", "cookie"]
    assert [word for word in private if word.lower() in sent] == []


def test_sentry_is_not_even_loaded_where_no_variable_names_one() -> None:
    script = "import django, sys; django.setup(); print('sentry_sdk' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "SENTRY_DSN"}

    loaded = {
        dsn: subprocess.run(
            [sys.executable, "-c", script],
            cwd=settings.BASE_DIR,
            env=environment | {"SENTRY_DSN": dsn},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for dsn in ("", "http://key@127.0.0.1:9/1")
    }

    assert list(loaded.values()) == ["False", "True"]
