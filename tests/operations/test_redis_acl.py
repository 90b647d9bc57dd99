"""A real Redis behind TLS, whose user may do what the shop does and nothing else: deploy/redis/users.acl."""

import ipaddress
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from django.conf import settings
from django.db import connection
from django_celery_results.models import TaskResult
from redis import Redis
from redis.exceptions import RedisError

from myproject import embedded
from tests.ports import free_port
from tests.shop import SECONDS, wait_for

SERVER = shutil.which("redis-server")
pytestmark = [
    pytest.mark.operations,
    pytest.mark.skipif(not SERVER, reason="needs a redis-server with TLS on the PATH"),
]


class Server(NamedTuple):
    port: int
    ca: Path
    admin: Redis

    def url(self, user: str = "shop", password: str = "the-secret", checks: str = "required") -> str:
        tls = f"ssl_cert_reqs={checks}&ssl_ca_certs={self.ca}"
        return f"rediss://{user}:{password}@127.0.0.1:{self.port}/0?{tls}"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "redis.key", folder / "redis.crt"
    paths[0].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths[1].write_bytes(certificate.public_bytes(Encoding.PEM))
    return paths


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    key, certificate = make_certificate(tmp_path)
    rules = (settings.BASE_DIR / "deploy/redis/users.acl").read_text().replace("change-me", "the-secret")
    (tmp_path / "users.acl").write_text(f"{rules}user admin on >admin ~* &* +@all\n")
    port = free_port()
    options = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(certificate),
        "tls-auth-clients": "no",
        "aclfile": str(tmp_path / "users.acl"),
        "dir": str(tmp_path),
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    log = (tmp_path / "redis.log").open("wb")
    process = subprocess.Popen([str(SERVER), *words], stdout=log, stderr=log)
    admin: Redis = Redis(
        host="127.0.0.1", port=port, username="admin", password="admin", ssl=True, ssl_ca_certs=str(certificate)
    )
    try:
        wait_for(lambda: process.poll() is not None or answers(admin), "Redis")
        said = (tmp_path / "redis.log").read_text()
        if "tls" in said.lower() and process.poll() is not None:
            pytest.skip("this redis-server knows no TLS")
        assert process.poll() is None, said
        yield Server(port, certificate, admin)
    finally:
        admin.close()
        process.terminate()
        process.wait(SECONDS)
        log.close()


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


def environment(url: str) -> dict[str, str]:
    ours = embedded.database_url(settings.VAR_DIR, connection.settings_dict["NAME"])
    return os.environ | {"CELERY_BROKER_URL": url, "DATABASE_URL": ours, "DJANGO_ALLOW_ASYNC_UNSAFE": ""}


def run(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, *words]
    env = environment(url)
    return subprocess.run(
        program, cwd=settings.BASE_DIR, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )


PUBLISH = """
import django; django.setup()
from myproject.tasks import add, fail_twice
from myproject.monitoring.broker import connected, waiting
for queue in ("default", "orders", "mail", "bulk", "reports"):
    add.apply_async((1, 2), queue=queue, priority=0)
fail_twice.delay()
with connected() as link:
    print(sum(queue.messages for queue in waiting(link)))
"""


@pytest.mark.usefixtures("transactional_db")
def test_shop_runs_by_tls_with_the_rights_of_its_user(redis: Server, tmp_path: Path) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")
    published = run(redis.url(), "-c", PUBLISH)
    assert published.stdout.strip() == "6", published.stderr
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "myproject", "worker", "--concurrency", "1"],
            cwd=settings.BASE_DIR,
            env=environment(redis.url()),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(lambda: TaskResult.objects.filter(status="SUCCESS").count() == 6, "six tasks")
        ping = run(redis.url(), "-m", "celery", "-A", "myproject", "inspect", "ping", "--timeout", "5")
        # Look again for unacknowledged messages.
        wait_for(lambda: redis.admin.info("commandstats").get("cmdstat_zrange"), "the restore")
    finally:
        worker.terminate()
        worker.wait(SECONDS)

    assert "pong" in ping.stdout
    # A courtesy of the client, which Redis before 7.2 does not know.
    refused = {entry["object"] for entry in redis.admin.acl_log()} - {"client|setinfo"}
    assert refused == set()


@pytest.mark.parametrize("command", ["CONFIG GET maxmemory", "FLUSHALL", "KEYS *", "GET elsewhere", "SHUTDOWN"])
def test_user_may_do_nothing_else(redis: Server, command: str) -> None:
    shop: Redis = Redis.from_url(redis.url())

    with pytest.raises(RedisError, match=r"[Nn]o permissions"):
        shop.execute_command(*command.split())


@pytest.mark.django_db(transaction=True)
def test_check_asks_such_a_redis_without_its_configuration(redis: Server) -> None:
    check = ("manage.py", "check", "--tag", "celery", "--deploy", "--database", "default")

    allowed = run(redis.url(), *check)
    redis.admin.execute_command("ACL", "SETUSER", "shop", "-info")
    refused = run(redis.url(), *check)

    assert (allowed.returncode, refused.returncode) == (0, 0)
    assert "no issues" in allowed.stdout + allowed.stderr
    assert "celery.W004" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("url", [{"password": "wrong"}, {"user": "default"}])
def test_wrong_password_is_said_and_costs_a_click_nothing(redis: Server, url: dict[str, str]) -> None:
    queue = "import django; django.setup()\nfrom myproject.tasks import add\nadd.delay_on_commit(1, 2)\nprint('done')"

    clicked = run(redis.url(**url), "-c", queue)

    assert (clicked.returncode, clicked.stdout.strip()) == (0, "done"), clicked.stderr
    assert "was not queued" in clicked.stderr
