"""What people type at `celery`: it works, or one line says what to do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django_celery_results.models import TaskResult

from myproject import embedded, tasks
from myproject.celery import app
from tests.broker import Broker
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.operations
CELERY = [sys.executable, "-m", "celery", "-A", "myproject"]
MANAGE = [sys.executable, "manage.py"]


def celery(*words: str, broker: Broker, program: list[str] = CELERY) -> tuple[int, str]:
    database = embedded.database_url(settings.VAR_DIR, connection.settings_dict["NAME"])
    env = os.environ | {"CELERY_BROKER_URL": broker.url, "DATABASE_URL": database}
    done = subprocess.run(
        [*program, *words], cwd=settings.BASE_DIR, env=env, capture_output=True, text=True, timeout=90
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.django_db(transaction=True)
def test_call_and_result_work_from_the_command_line(broker: Broker) -> None:
    done = TaskResult.objects.create(task_id="the-task", status="SUCCESS", result="7", task_name=tasks.add.name)

    called = celery("call", tasks.heartbeat.name, broker=broker)
    asked = celery("result", done.task_id, broker=broker)

    assert (called[0], asked) == (0, (0, "7\n"))
    assert [name for _, name, _ in broker.messages()] == [tasks.heartbeat.name]


@pytest.mark.parametrize("option", ["-Q", "-X"])
def test_worker_of_a_queue_that_is_none_says_which_there_are(option: str, broker: Broker) -> None:
    code, said = celery("worker", option, "high_priority,orders", broker=broker)

    assert (code, len(said.strip().splitlines())) == (1, 1)
    assert "no queue high_priority. There are: default, orders" in said


@pytest.mark.django_db(transaction=True)
def test_multi_writes_its_log_where_it_is_told(broker: Broker, tmp_path: Path) -> None:
    multi, files = (
        [sys.executable, "-m", "celery", "multi"],
        [f"--pidfile={tmp_path}/%n.pid", f"--logfile={tmp_path}/%n.log"],
    )
    celery("start", "one", "-A", "myproject", "--concurrency=1", *files, broker=broker, program=multi)
    try:
        wait_for(lambda: app.control.ping(timeout=1, limit=1), "the worker")
        tasks.add.delay(1, 2)
        wait_for(lambda: "task_succeeded" in (tmp_path / "one.log").read_text(), "the task in the log")
    finally:
        celery("stopwait", "one", *files, broker=broker, program=multi)

    assert "ready" in (tmp_path / "one.log").read_text()


def test_debug_task_makes_the_round_trip_through_each_queue(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    for queue in ("default", "orders"):
        call_command("debug_task", queue=queue)

    lines = capsys.readouterr().out.splitlines()
    assert all(re.fullmatch(r"worker@\S+ ran it from the queue \w+; back after \d+\.\d\d s\.", line) for line in lines)
    assert len(lines) == 2


@pytest.mark.django_db(transaction=True)
def test_debug_task_says_what_does_not_answer(broker: Broker) -> None:
    without_worker = celery("debug_task", "--queue", "mail", "--seconds", "1", broker=broker, program=MANAGE)
    broker.url = "redis://127.0.0.1:1"
    without_broker = celery("debug_task", broker=broker, program=MANAGE)

    assert (without_worker[0], without_broker[0]) == (1, 1)
    assert without_worker[1].endswith("CommandError: No worker ran it within 1 s. Does one read the queue mail?\n")
    assert "CommandError: The broker does not take the message: " in without_broker[1].splitlines()[-1]
