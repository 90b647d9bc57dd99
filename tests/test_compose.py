"""Dockerfile and docker-compose.yml, proved as far as that goes without an engine: parsed, and their commands run."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from django.conf import settings
from honcho.environ import parse_procfile

from myproject import embedded
from tests.shop import wait_for
from tests.test_env_example import variables_read

ROOT = settings.BASE_DIR
PROCFILE = parse_procfile((ROOT / "Procfile").read_text()).processes


def compose_file() -> dict[str, Any]:
    """Return docker-compose.yml with its defaults filled in, as Compose reads it where no variable is set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "docker-compose.yml").read_text())
    content: dict[str, Any] = yaml.safe_load(text.replace("$$", "$"))
    return content


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, in order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest) for word, rest in (line.split(maxsplit=1) for line in text.splitlines() if line)]


def argument(instruction: str) -> str:
    """Return what the last such instruction of the Dockerfile says."""
    return [rest for word, rest in instructions() if word == instruction][-1]


COMPOSE = compose_file()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == SERVICES["web"]["image"]]
IMAGE = dict(pair.split("=", 1) for pair in shlex.split(argument("ENV")) if not pair.startswith("PATH="))


def seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([sm])", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


# --- What the files say --------------------------------------------------------------------------------------


def test_compose_runs_each_process_of_the_procfile_and_one_job() -> None:
    commands = {name: SERVICES[name]["command"] for name in OURS}

    job = commands.pop("migrate")

    assert commands == PROCFILE
    assert job[:2] == ["sh", "-c"]
    assert re.findall(r"manage\.py (\w+)", job[2]) == ["migrate", "sync_schedules", "seed_demo"]


def test_compose_builds_one_image_in_one_place() -> None:
    builders = [name for name, service in SERVICES.items() if "build" in service]

    policies = {name: SERVICES[name]["pull_policy"] for name in OURS}

    assert builders == ["migrate"]
    assert policies == dict.fromkeys(OURS, "never") | {"migrate": "build"}


def test_compose_publishes_what_people_look_at_and_to_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {
        "web": ["127.0.0.1:8000:8000"],
        "flower": ["127.0.0.1:5555:5555"],
        "sandbox": ["127.0.0.1:8001:8001"],
    }
    assert not any("network_mode" in service for service in SERVICES.values())


def test_compose_keeps_the_queue_in_redis() -> None:
    command = SERVICES["redis"]["command"]

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_compose_starts_the_shop_after_the_migrations() -> None:
    waiting = {name: SERVICES[name]["depends_on"] for name in OURS if name not in ("migrate", "sandbox")}

    assert {name: needs["migrate"]["condition"] for name, needs in waiting.items()} == dict.fromkeys(
        waiting, "service_completed_successfully"
    )
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["restart"] == "no"


def test_compose_checks_the_health_of_whatever_is_waited_for() -> None:
    checked = {name for name, service in SERVICES.items() if "healthcheck" in service}

    awaited = {
        name
        for service in SERVICES.values()
        for name, needs in service.get("depends_on", {}).items()
        if needs["condition"] == "service_healthy"
    }

    assert awaited <= checked
    assert checked == {"postgres", "redis", "web", "worker", "sandbox"}


def test_compose_runs_one_beat() -> None:
    assert not {"deploy", "scale"} & SERVICES["beat"].keys()


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"migrate"}))
def test_compose_restarts_services_and_rotates_their_logs(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_compose_shares_the_reports_between_web_and_worker() -> None:
    folder = SERVICES["web"]["environment"]["MEDIA_ROOT"]

    users = {name for name, service in SERVICES.items() if f"media:{folder}" in service.get("volumes", [])}

    assert users == {"web", "worker"}
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert mounted == COMPOSE["volumes"].keys()


def test_compose_sets_only_variables_that_the_code_reads() -> None:
    used = {name for service in OURS for name in SERVICES[service]["environment"]}

    assert used - variables_read() == set()
    assert IMAGE.keys() - variables_read() == {"PYTHONUNBUFFERED"}


def test_compose_lets_the_web_finish_its_requests() -> None:
    graceful = re.search(r"graceful_timeout = (\d+)", (ROOT / "deploy" / "gunicorn.conf.py").read_text())

    assert graceful is not None
    assert seconds(SERVICES["web"]["stop_grace_period"]) > int(graceful[1])


def test_dockerfile_runs_the_web_as_somebody_else_than_root() -> None:
    assert argument("USER") not in ("root", "0")
    assert json.loads(argument("CMD")) == PROCFILE["web"].split()
    assert instructions()[-1][0] == "CMD"


def test_dockerfile_installs_the_requirements_before_the_code_comes() -> None:
    copied = [rest for word, rest in instructions() if word == "COPY"]

    assert copied.index("requirements.txt .") < copied.index(". .")
    assert SERVICES["migrate"]["build"]["args"]["PYTHON_IMAGE"] == argument("ARG").removeprefix("PYTHON_IMAGE=")


def test_dockerignore_keeps_secrets_and_data_out_of_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    assert {".env", ".git", ".venv", "var"} <= set(ignored)


# --- What its commands do ------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, servers: tuple[embedded.Postgres, embedded.Redis]) -> Path:
    """Make the database, the static files and the first rows, by the commands of the files themselves."""
    folder = tmp_path_factory.mktemp("compose")
    servers[0].create_database("compose")
    collect = next(rest for word, rest in instructions() if word == "RUN" and "collectstatic" in rest)
    outcome(["sh", "-c", collect], environment("migrate", folder))
    outcome(SERVICES["migrate"]["command"], environment("migrate", folder))
    return folder


def environment(service: str, home: Path) -> dict[str, str]:
    """Return the variables of a container, with the tests' servers and folders in place of the other containers."""
    return {
        **(IMAGE | SERVICES[service]["environment"]),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOSTNAME": socket.gethostname(),
        "DATABASE_URL": embedded.database_url(settings.VAR_DIR, "compose"),
        # Another database of Redis, so that the shop of the other tests does not take these messages.
        "CELERY_BROKER_URL": f"{settings.CELERY_BROKER_URL}?virtual_host=1",
        "VAR_DIR": str(home),
        "MEDIA_ROOT": str(home / "media"),
        "STATIC_ROOT": str(home / "static"),
        "WEB_BIND": f"127.0.0.1:{free_port()}",
        "SANDBOX_PORT": str(free_port()),
        "SMTP_PORT": str(free_port()),
    }


def outcome(command: list[str], env: dict[str, str]) -> str:
    """Run the command and return what it says; fail if it fails."""
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def running(service: str, env: dict[str, str], home: Path) -> Iterator[None]:
    with (home / f"{service}.log").open("ab") as log:
        process = subprocess.Popen(
            shlex.split(SERVICES[service]["command"]), cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def is_healthy(service: str, env: dict[str, str]) -> bool:
    """Run the health check of the service, at the port that the service has here."""
    kind, *words = SERVICES[service]["healthcheck"]["test"]
    ports = {"127.0.0.1:8000": env["WEB_BIND"], "127.0.0.1:8001": f"127.0.0.1:{env['SANDBOX_PORT']}"}
    words = [reduce(lambda text, pair: text.replace(*pair), ports.items(), word) for word in words]
    command = words if kind == "CMD" else ["sh", "-c", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=100, check=False).returncode == 0


def get(address: str, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    try:
        with urlopen(Request(f"http://{address}{path}", headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except HTTPError as error:
        return error.code, "", dict(error.headers)


def test_web_of_compose_serves_the_seeded_shop_and_hashed_static_files(home: Path) -> None:
    env = environment("web", home)
    address = env["WEB_BIND"]

    with running("web", env, home):
        wait_for(lambda: is_healthy("web", env), "the web of docker-compose.yml")
        login, catalogue = get(address, "/accounts/login/"), get(address, "/")
        style = re.search(r'href="(/static/shop\.[0-9a-f]{12}\.css)"', login[1])
        static = get(address, style[1] if style else "/")
        stranger = get(address, "/accounts/login/", Host="elsewhere.example.com")

    assert (login[0], catalogue[0], static[0], stranger[0]) == (200, 200, 200, 400)
    assert "immutable" in static[2]["Cache-Control"]
    assert "/products/" in catalogue[1]
    assert not is_healthy("web", env)


def test_web_of_compose_is_healthy_as_changed_for_production(home: Path) -> None:
    env = environment("web", home) | {"BEHIND_PROXY": "true", "ALLOWED_HOSTS": "shop.example.com,127.0.0.1"}
    del env["HTTPS"]

    warnings = outcome(["python", "manage.py", "check", "--deploy", "--fail-level", "WARNING"], env)
    with running("web", env, home):
        wait_for(lambda: is_healthy("web", env), "the web of docker-compose.yml")

    assert "no issues" in warnings


def test_worker_of_compose_is_healthy_while_it_runs(home: Path) -> None:
    env = environment("worker", home)

    with running("worker", env, home):
        wait_for(lambda: is_healthy("worker", env), "the worker of docker-compose.yml")

    assert not is_healthy("worker", env)


def test_worker_of_compose_may_finish_the_longest_task_that_has_a_limit(home: Path) -> None:
    script = """if True:
        import json
        from myproject.celery import app
        app.loader.import_default_modules()
        ours = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}
        own = {name: task.time_limit for name, task in ours.items() if task.time_limit != app.conf.task_time_limit}
        print(json.dumps([own, sorted(ours.keys() - own.keys())]))
    """

    limits, without = json.loads(outcome(["python", "-c", script], environment("worker", home)))

    assert limits["reports.tasks.generate_report"] == max(limits.values())
    assert max(limits.values()) < seconds(SERVICES["worker"]["stop_grace_period"])
    # What sets no limit is short: samples and sweeps.
    assert {name.split(".")[-1].split("_")[0] for name in without} == {
        *("add", "multiply", "debug", "heartbeat", "check"),
    }


def test_sandbox_of_compose_is_healthy_and_keeps_its_data_where_it_is_told(home: Path) -> None:
    env = environment("sandbox", home) | {"SANDBOX_HOST": "127.0.0.1", "SANDBOX_DATA": str(home / "sandbox")}

    with running("sandbox", env, home):
        wait_for(lambda: is_healthy("sandbox", env), "the sandbox of docker-compose.yml")

    assert SERVICES["sandbox"]["environment"]["SANDBOX_HOST"] == "0.0.0.0"
    assert any((home / "sandbox").iterdir())
