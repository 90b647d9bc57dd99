"""The web as it runs in production: gunicorn with DEBUG off, behind a proxy that speaks HTTPS."""

import os
import subprocess
import sys
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlencode

from django.conf import settings
from django.db import connection

from myproject import embedded
from tests.ports import free_port
from tests.shop import SECONDS, wait_for

HOST = "shop.example.com"
LOG = ["--access-logfile", "-", "--access-logformat", "process %(p)s answered %(s)s"]


class Answer(NamedTuple):
    status: int
    headers: HTTPMessage
    text: str

    def cookies(self) -> list[str]:
        """Return each cookie that is set, with its attributes."""
        return list(self.headers.get_all("Set-Cookie", []))


class Web:
    def __init__(self, folder: Path, *, collected: bool = True, **variables: str) -> None:
        self.collected = collected
        self.log = folder / "gunicorn.log"
        self.port = free_port()
        self.environment = os.environ | {
            "DEBUG": "false",
            "HTTPS": "true",
            "BEHIND_PROXY": "true",
            "SECRET_KEY": "of-the-tests-alone-and-longer-than-fifty-characters-in-all",
            "ALLOWED_HOSTS": HOST,
            "SITE_URL": f"https://{HOST}",
            "DATABASE_URL": embedded.database_url(settings.VAR_DIR, connection.settings_dict["NAME"]),
            "STATIC_ROOT": str(folder / "static"),
            "WEB_BIND": f"127.0.0.1:{self.port}",
            "DJANGO_ALLOW_ASYNC_UNSAFE": "",
            **variables,
        }

    def __enter__(self) -> Self:
        if self.collected:
            program = [sys.executable, "manage.py", "collectstatic", "--noinput"]
            subprocess.run(program, cwd=settings.BASE_DIR, env=self.environment, check=True, capture_output=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "myproject.wsgi", "--config", "deploy/gunicorn.conf.py", *LOG],
                cwd=settings.BASE_DIR,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        with ExitStack() as stack:
            # It must not stay when it never answers.
            stack.push(self)
            wait_for(self.answers, "gunicorn")
            stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.terminate()
        self.process.wait(SECONDS)

    def answers(self) -> bool:
        try:
            return self.get("/accounts/login/").status == 200
        except OSError:
            return False

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers)

    def post(self, path: str, data: dict[str, str], **headers: str) -> Answer:
        form = {"Content-Type": "application/x-www-form-urlencoded", "Referer": f"https://{HOST}{path}"}
        return self.ask("POST", path, form | headers, urlencode(data))

    def ask(self, method: str, path: str, headers: dict[str, str], body: str = "") -> Answer:
        """Ask over a connection of its own, so that either process may answer."""
        proxy = {"Host": HOST, "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
        http = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            http.request(method, path, body, proxy | headers)
            answer = http.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            http.close()
