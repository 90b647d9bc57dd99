"""Signed messages: real workers, and messages put into Redis by hand."""

import base64
import json
import os
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.security.certificate import FSCertStore
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Sum
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_results.models import TaskResult
from time_machine import travel

from myproject import embedded
from myproject.alerting.models import Alert, DeadLetter
from myproject.celery import app
from myproject.monitoring.broker import connected, waiting
from myproject.transport import certificates
from orders.models import Order, Status
from tests.broker import Broker
from tests.factories import place_order
from tests.shop import SECONDS, Shop, wait_for

pytestmark = pytest.mark.operations

pytest_plugins = ["tests.broker"]

Message = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    certificates.make(folder, days=365)
    return folder


def variables(folder: Path, store: Path | None = None) -> dict[str, str]:
    paths = (folder / "key.pem", folder / "certificate.pem", store or folder / "trusted")
    return {f"CELERY_{name.upper()}": str(path) for name, path in zip(certificates.SETTINGS, paths, strict=True)}


def environment(**others: str) -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": embedded.database_url(settings.VAR_DIR, connection.settings_dict["NAME"]),
        "CELERY_BROKER_URL": Broker().url,
        "DJANGO_ALLOW_ASYNC_UNSAFE": "",
        **others,
    }


def python(code: str, **others: str) -> str:
    """Run the code in a process of its own, as the web would; return what it prints."""
    program = f"import django; django.setup()\nfrom myproject.celery import app\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=settings.BASE_DIR,
        env=environment(DJANGO_SETTINGS_MODULE="myproject.settings", **others),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def celery(*words: str, **others: str) -> str:
    program = [sys.executable, "-m", "celery", "-A", "myproject", *words]
    env = environment(**others)
    done = subprocess.run(program, cwd=settings.BASE_DIR, env=env, capture_output=True, text=True, check=False)
    return done.stdout


@contextmanager
def running(log: Path, *words: str, **others: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        program = [sys.executable, "-m", "celery", "-A", "myproject", *words]
        process = subprocess.Popen(
            program, cwd=settings.BASE_DIR, env=environment(**others), stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(SECONDS)


@contextmanager
def worker(log: Path, **others: str) -> Iterator[None]:
    with running(log, "worker", "--concurrency", "1", **others):
        wait_for(lambda: log.exists() and " ready." in log.read_text(), "the worker")
        yield


def lay(queue: str, *messages: Message) -> None:
    with app.connection_for_write() as link:
        for message in messages:
            link.default_channel.client.lpush(queue, json.dumps(message))


def take(queue: str) -> Message:
    with app.connection_for_write() as link:
        content: Message = json.loads(link.default_channel.client.rpop(queue))
    return content


def left_at_the_broker() -> set[str]:
    with app.connection_for_read() as link:
        redis = link.default_channel.client
        queues = {queue.name for queue in app.conf.task_queues if redis.exists(queue.name)}
        return queues | {
            name.decode() for name in redis.keys("unacked*") if b"mutex" not in name and b"ready" not in name
        }


def with_id(message: Message) -> Message:
    """Return a copy that the broker takes for another message."""
    copy: Message = json.loads(json.dumps(message))
    copy["properties"]["delivery_tag"] = str(uuid.uuid4())
    return copy


def relabelled(message: Message, **headers: Any) -> Message:
    copy = with_id(message)
    copy["headers"] |= headers
    return copy


def tampered(message: Message) -> Message:
    """Return a copy with another number in the part that is signed."""
    copy = with_id(message)
    envelope = base64.b64decode(base64.b64decode(copy["body"]))
    forged = envelope.replace(b'"y": 2', b'"y": 3')
    assert forged != envelope
    copy["body"] = base64.b64encode(base64.b64encode(forged)).decode()
    return copy


def plain(message: Message, **changes: Any) -> Message:
    body = base64.b64encode(json.dumps([[], {"x": 1, "y": 2}, {}]).encode()).decode()
    return with_id(message) | {"body": body, "content-type": "application/json"} | changes


ADD = "from myproject.tasks import add; add.delay(x=1, y=2)"
PROCESS = "from orders.tasks import process_order; process_order.delay(order_id={})"


@pytest.mark.usefixtures("transactional_db")
def test_worker_refuses_what_is_not_signed_and_orders_go_on(
    processes: Shop, broker: Broker, folder: Path, tmp_path: Path
) -> None:
    foreign, log, order = tmp_path / "foreign", tmp_path / "worker.log", place_order()
    certificates.make(foreign, days=1)
    python(ADD, **variables(foreign))
    of_a_stranger = take("default")
    python(ADD, **variables(folder))
    signed = take("default")
    forged = {
        "tampered": tampered(signed),
        "foreign": of_a_stranger,
        "plain": plain(signed),
        "plain that says it is signed": plain(signed, **{"content-type": "application/data"}),
        "text, which kombu lets pass": plain(signed, **{"content-type": "application/text"}),
        "another task's": relabelled(signed, task="myproject.tasks.multiply"),
        "without limits": relabelled(signed, timelimit=[1, 1]),
        "old protocol": plain(signed, headers={}),
        "no body": with_id(signed) | {"body": ""},
    }

    lay("default", *forged.values())
    python(PROCESS.format(order.pk), **variables(folder))
    with worker(log, **variables(folder)):
        wait_for(lambda: Order.objects.get(pk=order.pk).status == Status.COMPLETED, "the order")
        wait_for(lambda: Alert.objects.aggregate(sum=Sum("count"))["sum"] == len(forged), "the alert")
        wait_for(lambda: left_at_the_broker() == set(), "an empty broker")

    assert set(TaskResult.objects.values_list("task_name", flat=True)) == {"orders.tasks.process_order"}
    assert set(Alert.objects.values_list("subject", flat=True)) == {"A message was refused"}
    assert DeadLetter.objects.count() == len(forged)
    assert "It came by default, calls itself " in log.read_text()


@pytest.mark.usefixtures("transactional_db")
def test_worker_runs_what_is_signed_with_a_retry_and_a_limit(broker: Broker, folder: Path, tmp_path: Path) -> None:
    publish = "from myproject.tasks import add, fail_twice; fail_twice.delay(); add.apply_async((1, 2), expires=60)"

    with worker(tmp_path / "worker.log", **variables(folder)):
        python(publish, **variables(folder))
        wait_for(lambda: TaskResult.objects.filter(status="SUCCESS").count() == 2, "both tasks")

    assert list(Alert.objects.values_list("message", flat=True)) == []
    assert set(TaskResult.objects.values_list("result", flat=True)) == {"3", '"Attempt 3 succeeded."'}


@pytest.mark.usefixtures("transactional_db")
def test_control_is_for_who_signs(broker: Broker, folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"

    with worker(log, **variables(folder)):
        ours = celery("inspect", "ping", "--timeout", "5", **variables(folder))
        celery("control", "shutdown", "--timeout", "1")
        wait_for(lambda: Alert.objects.filter(subject="A message was refused"), "the alert")
        ours_again = celery("inspect", "ping", "--timeout", "5", **variables(folder))

    assert "pong" in ours
    assert "pong" in ours_again


@pytest.mark.usefixtures("transactional_db")
def test_beat_signs(broker: Broker, folder: Path, tmp_path: Path) -> None:
    second = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.create(name="Sum", task="myproject.tasks.add", args="[1, 2]", interval=second)

    with (
        worker(tmp_path / "worker.log", **variables(folder)),
        running(tmp_path / "beat.log", "beat", **variables(folder)),
    ):
        wait_for(lambda: TaskResult.objects.filter(result="3"), "a task of beat's")

    assert list(Alert.objects.values_list("message", flat=True)) == []


@pytest.mark.usefixtures("transactional_db")
def test_certificates_change_while_both_are_trusted(broker: Broker, folder: Path, tmp_path: Path) -> None:
    old, new = folder, tmp_path / "new"
    certificates.make(new, days=365)
    both = tmp_path / "both"
    both.mkdir()
    for path in (*(old / "trusted").iterdir(), *(new / "trusted").iterdir()):
        (both / path.name).write_bytes(path.read_bytes())

    with worker(tmp_path / "worker.log", **variables(new, both)):
        for folder_of_sender in (old, new):
            python(ADD, **variables(folder_of_sender, both))
        wait_for(lambda: TaskResult.objects.filter(status="SUCCESS").count() == 2, "both tasks")

    assert list(Alert.objects.values_list("message", flat=True)) == []


def test_age_of_a_signed_message_is_known(broker: Broker, folder: Path) -> None:
    python(ADD, **variables(folder))

    with connected() as link:
        (waits,) = [queue for queue in waiting(link) if queue.messages]

    assert waits.age is not None
    assert waits.age < timedelta(minutes=1)


# --- Certificates ---


def test_make_certificates_makes_what_the_check_wants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("make_certificates", str(tmp_path / "new"))

    conf = dict(line.removeprefix("CELERY_").split("=") for line in capsys.readouterr().out.splitlines())
    conf = {name.lower(): path for name, path in conf.items()}
    assert set(conf) == set(certificates.SETTINGS)
    assert list(certificates.problems(conf)) == list(certificates.ends_soon(conf)) == []
    assert stat.S_IMODE(Path(conf["security_key"]).stat().st_mode) == 0o600


@pytest.mark.parametrize("days", [0, -1, 36_501, 3_000_000, 10**30])
def test_make_certificates_refuses_a_life_that_no_calendar_has(days: int, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="a day at least"):
        call_command("make_certificates", str(tmp_path / "new"), f"--days={days}")

    assert not (tmp_path / "new").exists()


def test_make_certificates_overwrites_nothing(tmp_path: Path) -> None:
    call_command("make_certificates", str(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pem")}

    with pytest.raises(CommandError, match="File exists"):
        call_command("make_certificates", str(tmp_path))

    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pem")} == before


def conf(folder: Path) -> dict[str, str]:
    names = ("key.pem", "certificate.pem", "trusted")
    return {name: str(folder / file) for name, file in zip(certificates.SETTINGS, names, strict=True)}


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda conf, folder: conf.pop("security_key"), "CELERY_SECURITY_KEY is not set"),
        (lambda conf, folder: (folder / "key.pem").unlink(), "No such file"),
        (lambda conf, folder: (folder / "key.pem").write_text("nonsense"), "cannot be read as PEM"),
        (lambda conf, folder: (folder / "certificate.pem").write_text("nonsense"), "cannot be read as PEM"),
        (lambda conf, folder: conf.update(security_key=conf["security_certificate"]), "cannot be read as PEM"),
        (lambda conf, folder: (folder / "trusted" / "notes").write_text("nonsense"), "notes cannot be read as PEM"),
        (lambda conf, folder: conf.update(security_cert_store=str(folder / "empty")), "there is nothing"),
    ],
)
def test_check_says_what_is_wrong_with_the_files(
    spoil: Callable[[dict[str, str], Path], None], word: str, tmp_path: Path
) -> None:
    certificates.make(tmp_path, days=365)
    settings = conf(tmp_path)

    spoil(settings, tmp_path)

    assert any(word in problem for problem in certificates.problems(settings))


def test_check_takes_a_store_as_kubernetes_mounts_it(tmp_path: Path) -> None:
    """Links into a hidden folder, which neither Celery nor the check may take for a certificate."""
    certificates.make(tmp_path, days=365)
    [certificate] = (tmp_path / "trusted").iterdir()
    store = tmp_path / "mounted"
    (store / "..2026_11_21").mkdir(parents=True)
    certificate.rename(store / "..2026_11_21" / certificate.name)
    (store / "..data").symlink_to("..2026_11_21")
    (store / certificate.name).symlink_to(Path("..data", certificate.name))

    settings = conf(tmp_path) | {"security_cert_store": str(store)}

    assert list(certificates.problems(settings)) == []
    assert len(list(FSCertStore(str(store)).itercerts())) == 1


def test_check_says_that_key_and_certificate_are_no_pair(folder: Path, tmp_path: Path) -> None:
    certificates.make(tmp_path, days=365)

    mixed = conf(tmp_path) | {"security_key": str(folder / "key.pem")}

    assert list(certificates.problems(mixed)) == ["CELERY_SECURITY_KEY is not the key of CELERY_SECURITY_CERTIFICATE"]


def test_check_says_that_the_store_does_not_trust_the_certificate(folder: Path, tmp_path: Path) -> None:
    certificates.make(tmp_path, days=365)

    mixed = conf(tmp_path) | {"security_cert_store": str(folder / "trusted")}

    assert "does not hold" in next(certificates.problems(mixed))


@pytest.mark.parametrize(("days", "soon", "expired"), [(334, False, False), (336, True, False), (366, True, True)])
def test_check_says_when_a_certificate_ends(days: int, soon: bool, expired: bool, tmp_path: Path) -> None:
    certificates.make(tmp_path, days=365)

    with travel(timezone.now() + timedelta(days=days)):
        found = any(certificates.ends_soon(conf(tmp_path))), any(certificates.problems(conf(tmp_path)))

    assert found == (soon, expired)


def test_check_says_nothing_where_signing_is_off() -> None:
    assert list(certificates.problems({})) == list(certificates.ends_soon({})) == []


def test_worker_does_not_start_with_half_of_it(folder: Path) -> None:
    program = [sys.executable, "-m", "celery", "-A", "myproject", "worker"]
    half = os.environ | {"CELERY_SECURITY_KEY": str(folder / "key.pem")}

    done = subprocess.run(program, cwd=settings.BASE_DIR, env=half, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "celery.E013" in done.stderr
