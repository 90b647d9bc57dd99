"""Addresses that people try: each works as it is meant, against real servers, or one line says what to write."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from myproject.transport.addresses import read
from tests.ports import free_port
from tests.shop import wait_for

pytestmark = pytest.mark.operations
REDIS = shutil.which("redis-server")
PASSWORD = "p#ss/w?rd@%"
needs_redis = pytest.mark.skipif(REDIS is None, reason="needs redis-server on the PATH")
# Sends a message, takes it again, keeps a result and finds it, as this process does with its own settings.
ROUND = """import django; django.setup()
from myproject.celery import app
from myproject.tasks import heartbeat
with app.connection_for_write() as link:
    heartbeat.apply_async(queue="default")
    print(link.SimpleQueue("default").get(timeout=5).headers["task"])
app.backend.store_result("a", 7, "SUCCESS"); print(app.AsyncResult("a").result)
"""


def said_lines(said: str) -> list[str]:
    """Return what was printed, without the lines of the log."""
    return [line for line in said.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]


def run(program: list[str], **variables: str) -> tuple[int, str]:
    env = os.environ | variables
    done = subprocess.run(program, cwd=settings.BASE_DIR, env=env, capture_output=True, text=True, timeout=90)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def server(folder: Path, *lines: str, mode: str = "") -> Iterator[None]:
    folder.mkdir()
    (folder / "redis.conf").write_text("\n".join([f"dir {folder}", "bind 127.0.0.1", 'save ""', *lines]))
    with subprocess.Popen(
        [str(REDIS), str(folder / "redis.conf"), *mode.split()], stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key, cert = folder / f"{name}.key", folder / f"{name}.crt"
    names = f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"
    options = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout"]
    subprocess.run(["openssl", *options, key, "-out", cert, "-subj", *names], check=True, capture_output=True)
    return key, cert


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[str]:
    """Run a Redis with a password, and two sentinels that watch it; return their address without its query."""
    port, *watchers = free_port(), free_port(), free_port()
    watch = [f"sentinel monitor shop 127.0.0.1 {port} 2", f'sentinel auth-pass shop "{PASSWORD}"']
    with ExitStack() as stack:
        stack.enter_context(server(tmp_path / "redis", f"port {port}", f'requirepass "{PASSWORD}"'))
        wait_for(lambda: listens(port), "Redis")
        for number in watchers:
            stack.enter_context(server(tmp_path / str(number), f"port {number}", *watch, mode="--sentinel"))
            wait_for(lambda number=number: listens(number), "a sentinel")  # type: ignore[misc]
        yield f"sentinel://:{quote(PASSWORD, safe='')}@localhost:{watchers[0]};sentinel://localhost:{watchers[1]}/1"


@needs_redis
def test_sentinels_lead_to_their_redis_by_the_address_alone(sentinels: str) -> None:
    url = f"{sentinels}?master_name=shop"

    code, said = run([sys.executable, "-c", ROUND], CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url)

    assert (code, said_lines(said)) == (0, ["myproject.tasks.heartbeat", "7"]), said


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Run a Redis that speaks TLS only; return its address and the certificate to trust."""
    port = free_port()
    key, cert = certificate(tmp_path, "localhost")
    options = ("port 0", f"tls-port {port}", f"tls-cert-file {cert}", f"tls-key-file {key}", "tls-auth-clients no")
    with server(tmp_path / "redis", *options, f'requirepass "{PASSWORD}"'):
        wait_for(lambda: listens(port), "Redis")
        yield f"rediss://:{quote(PASSWORD, safe='')}@localhost:{port}/0", cert


@needs_redis
def test_tls_trusts_the_certificate_that_the_address_names(tls: tuple[str, Path]) -> None:
    url = f"{tls[0]}?ssl_ca_certs={tls[1]}"

    code, said = run([sys.executable, "-c", ROUND], CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url)

    assert (code, said_lines(said)) == (0, ["myproject.tasks.heartbeat", "7"]), said


@needs_redis
@pytest.mark.parametrize("wrong", ["unknown", "another name"])
def test_tls_refuses_whom_it_cannot_verify(wrong: str, tls: tuple[str, Path]) -> None:
    unnamed = tls[0].replace("localhost", "127.0.0.1") + f"?ssl_ca_certs={tls[1]}"

    code, said = run([sys.executable, "-c", ROUND], CELERY_BROKER_URL=tls[0] if wrong == "unknown" else unnamed)

    assert code != 0
    assert "CERTIFICATE_VERIFY_FAILED" in said


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_tls_verifies_unless_the_address_says_otherwise(scheme: str) -> None:
    verified, unverified = (read("X", f"{scheme}://host:1/0{query}").tls or {} for query in ("", "?ssl_cert_reqs=none"))

    assert {ssl.CERT_REQUIRED} == {value for key, value in verified.items() if key.endswith("cert_reqs")}
    assert {ssl.CERT_NONE} == {value for key, value in unverified.items() if key.endswith("cert_reqs")}


@pytest.mark.parametrize(
    "url",
    ["redis://:a#b@host:6379/0", "redis://:a/b@host/0", "redis://:1/b@host", "redis://:a?b@host", "redis://h:x/0"],
)
def test_password_that_is_not_escaped_is_no_other_host(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="X cannot be read: within user and password write") as raised:
        read("X", url)
    assert "host" not in str(raised.value)


def test_sentinels_without_the_name_of_what_they_watch_are_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"X does not say .*\?master_name=NAME"):
        read("X", "sentinel://localhost:26379")


WRONG = {
    "CELERY_BROKER_URL": "redis://:a#b@127.0.0.1:6379/0",
    "CELERY_RESULT_BACKEND": "sentinel://localhost:26379",
    "DATABASE_URL": "postgres://shop:a#b@host/shop",
    "EMAIL_URL": "smtp://user:a#b@host",
    "LOG_LEVEL": "loud",
    "SENTRY_DSN": "https://sentry.example.com/",
    "SECRET_KEY": "",
}
PROGRAMS = {
    "manage.py": [sys.executable, "manage.py", "check"],
    "celery": [sys.executable, "-m", "celery", "-A", "myproject", "worker"],
    "gunicorn": [sys.executable, "-m", "gunicorn", "myproject.wsgi", "--config", "deploy/gunicorn.conf.py"],
}


# All programs read them in the same way, so the others are given one.
@pytest.mark.parametrize(
    ("name", "program"), [*((name, "manage.py") for name in WRONG), ("LOG_LEVEL", "celery"), ("LOG_LEVEL", "gunicorn")]
)
def test_setting_that_cannot_be_used_ends_each_program_in_one_line(name: str, program: str) -> None:
    code, said = run(PROGRAMS[program], **{"DEBUG": "false", "SECRET_KEY": "x" * 50} | {name: WRONG[name]})

    assert code == 1
    assert len(said.strip().splitlines()) == 1
    assert name in said


def test_level_of_the_log_may_be_written_small() -> None:
    code, said = run(
        [sys.executable, "-c", "import logging, django; django.setup(); print(logging.root.level)"], LOG_LEVEL="debug"
    )

    assert (code, said.strip()) == (0, "10")
