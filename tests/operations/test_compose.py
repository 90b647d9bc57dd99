"""Dockerfile and compose files, proved as far as that goes without an engine: parsed, and their commands run."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from myproject.management.commands.run import procfile
from tests.containers import IMAGE, PROGRAMS, ROOT, Machine, argument, can_be_read_only, demo, instructions, production
from tests.families import longest_limits, seconds
from tests.shop import wait_for
from tests.test_env_example import variables_read

PROCFILE = procfile()
BASE, DEMO = production({}), demo()
SERVICES: dict[str, dict[str, Any]] = BASE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == SERVICES["web"]["image"]]
WORKERS = [name for name in OURS if name.startswith("worker-")]
MONITORING = {"prometheus", "alertmanager", "grafana"}
# Celery reads it by itself.
OF_CELERY = {"REMAP_SIGTERM"}

# The fixture starts servers and migrates a database.
pytestmark = [pytest.mark.operations, pytest.mark.timeout(300)]


# --- What the files say --------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [BASE, DEMO], ids=["production", "demo"])
def test_compose_follows_the_compose_specification(content: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "docker-compose.yml"
    file.write_text(yaml.safe_dump(content))

    checked = subprocess.run(
        [PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout


def test_compose_runs_each_process_of_the_procfile_and_one_job() -> None:
    commands = {name: SERVICES[name]["command"] for name in OURS}

    job = commands.pop("migrate")
    workers = {name: commands.pop(name) for name in WORKERS}

    assert commands | {"worker": PROCFILE["worker"]} == PROCFILE
    assert all(command.startswith("celery -A myproject --quiet worker ") for command in workers.values())
    assert job[:2] == ["sh", "-c"]
    assert re.findall(r"manage\.py (\w+)", job[2]) == ["migrate", "sync_schedules", "sync_groups"]


def test_compose_builds_one_image_in_one_place() -> None:
    builders = [name for name, service in SERVICES.items() if "build" in service]

    policies = {name: SERVICES[name]["pull_policy"] for name in OURS}

    assert builders == ["migrate"]
    assert policies == dict.fromkeys(OURS, "never") | {"migrate": "build"}


def test_compose_publishes_what_people_look_at_and_to_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in DEMO["services"].items() if "ports" in service}

    assert published == {
        "web": ["127.0.0.1:8000:8000"],
        "live": ["127.0.0.1:8002:8002"],
        "flower": ["127.0.0.1:5555:5555"],
        "sandbox": ["127.0.0.1:8001:8001"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "alertmanager": ["127.0.0.1:9093:9093"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    assert not any("network_mode" in service for service in SERVICES.values())


def test_compose_starts_the_shop_after_the_migrations() -> None:
    waiting = {name: SERVICES[name]["depends_on"] for name in OURS if name != "migrate"}

    assert {name: needs["migrate"]["condition"] for name, needs in waiting.items()} == dict.fromkeys(
        waiting, "service_completed_successfully"
    )
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["restart"] == "no"


def test_upgrade_replaces_every_container_of_ours_after_the_migrations_and_workers_first() -> None:
    guide = (ROOT / "docs" / "operations" / "docker-compose.md").read_text()
    upgrade = guide.split("To **upgrade**")[1].split("```")[1]

    migrated, first, then = re.findall(r"docker compose (?:run --rm|up --detach --no-deps --wait) (\w[^&\n]*)", upgrade)

    assert migrated.strip() == "migrate"
    assert first.split() == WORKERS
    assert sorted(then.split()) == sorted(set(OURS) - {"migrate", "sandbox", *WORKERS})


def test_compose_checks_the_health_of_every_service() -> None:
    unchecked = [name for name, service in SERVICES.items() if "test" not in service["healthcheck"]]

    assert unchecked == ["migrate"]
    # Else it has that of the image: a web.
    assert SERVICES["migrate"]["healthcheck"] == {"disable": True}
    image = re.search(r"\[.*\]", argument("HEALTHCHECK"))
    assert image is not None
    assert ["CMD", *json.loads(image[0])] == SERVICES["web"]["healthcheck"]["test"]


def test_prometheus_asks_each_container_that_serves_metrics_however_many_there_are() -> None:
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    worker, *others = sorted(jobs, key=lambda job: job["job_name"] != "worker")

    [found] = worker["dns_sd_configs"]

    assert (found["names"], found["type"]) == (WORKERS, "A")
    assert {SERVICES[name]["environment"]["METRICS_PORT"] for name in WORKERS} == {str(found["port"])}
    assert [job["static_configs"][0]["targets"] for job in others] == [["web:8000"], ["beat:9808"], ["live:8002"]]


def test_compose_runs_one_beat() -> None:
    assert not {"deploy", "scale"} & SERVICES["beat"].keys()


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_compose_lets_no_container_do_more_than_it_must(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+[gm]", service["mem_limit"])
    assert "cap_add" not in service or name == "postgres"


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"migrate"}))
def test_compose_restarts_services_and_rotates_their_logs(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_compose_shares_the_reports_between_web_and_workers() -> None:
    folder = SERVICES["web"]["environment"]["MEDIA_ROOT"]

    users = {name for name, service in SERVICES.items() if f"media:{folder}" in service.get("volumes", [])}

    assert users == {"web", *WORKERS}
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {name for name in mounted if not name.startswith("./")} == BASE["volumes"].keys()
    assert [name for name in mounted if name.startswith("./") and not (ROOT / name).exists()] == []


def test_compose_sets_only_variables_that_the_code_reads() -> None:
    environments = [DEMO["services"][service]["environment"] for service in OURS]
    # An empty one hides what `.env` holds for other containers.
    used = {name for environment in environments for name, value in environment.items() if value != ""}

    assert used - variables_read() - OF_CELERY == set()
    assert IMAGE.keys() - variables_read() == {"PYTHONUNBUFFERED"}


def test_pgbouncers_file_of_the_guide_leaves_out_the_migrations_alone() -> None:
    guide = (ROOT / "docs" / "operations" / "database.md").read_text()
    servers = yaml.safe_load("x-worker:" + guide.split("```\nx-worker:")[1].split("```")[0])["services"]

    bounced = [name for name, service in servers.items() if service["environment"].get("DATABASE_PGBOUNCER") == "true"]

    # What listens for notifications goes to PostgreSQL itself.
    assert sorted(servers) == sorted(set(OURS) - {"sandbox", "live"})
    assert sorted(bounced) == sorted(servers.keys() - {"migrate"})
    assert {service["environment"]["DATABASE_URL"].rpartition("/")[2] for service in servers.values()} == {
        *("shop", "shop_web", "shop_worker"),
    }


def test_compose_overrules_what_a_laptops_dotenv_says_of_places() -> None:
    assert IMAGE.keys() - {"PYTHONUNBUFFERED"} <= SERVICES["web"]["environment"].keys()
    assert SERVICES["web"]["env_file"] == [{"path": ".env", "required": False}]
    assert "env_file" not in SERVICES["sandbox"]


def test_compose_has_no_public_secret_outside_of_the_demo() -> None:
    text = (ROOT / "docker-compose.yml").read_text()

    assert "SECRET_KEY" not in text
    assert re.findall(r"PASSWORD:-([^}]+)}", text) == []
    assert "seed_demo" not in text
    assert SERVICES["sandbox"]["profiles"] == ["demo"]


def test_demo_needs_no_profile_and_seeds_the_shop() -> None:
    services = DEMO["services"]

    assert {name for name, service in services.items() if "profiles" in service} == MONITORING
    assert re.findall(r"manage\.py (\w+)", services["migrate"]["command"][2])[-1] == "seed_demo"
    assert {services[name]["environment"].get("SANDBOX_URL") for name in OURS if name != "sandbox"} == {
        "http://localhost:8001"
    }


def test_compose_lets_the_web_finish_its_requests() -> None:
    graceful = re.search(r"graceful_timeout = (\d+)", (ROOT / "deploy" / "gunicorn.conf.py").read_text())

    assert graceful is not None
    assert seconds(SERVICES["web"]["stop_grace_period"]) > int(graceful[1])


def test_limits_are_missing_for_short_tasks_only() -> None:
    _, without = longest_limits()

    # Samples and sweeps.
    assert {name.split(".")[-1].split("_")[0] for name in without} <= {
        *("add", "multiply", "total", "debug", "heartbeat", "check", "canary"),
    }


def test_dockerfile_has_nothing_that_a_linter_complains_about() -> None:
    checked = subprocess.run([PROGRAMS / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)

    assert checked.stdout == ""


def test_dockerfile_runs_the_web_as_somebody_else_than_root() -> None:
    assert argument("USER") not in ("root", "0")
    assert json.loads(argument("CMD")) == PROCFILE["web"].split()
    assert instructions()[-1][0] == "CMD"


def test_dockerfile_installs_the_requirements_before_the_code_comes() -> None:
    copied = [rest for word, rest in instructions() if word == "COPY"]

    assert copied.index("requirements.txt .") < copied.index(". .")
    defaults = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")
    assert SERVICES["migrate"]["build"]["args"]["PYTHON_IMAGE"] == defaults["PYTHON_IMAGE"]


def test_each_extra_of_the_image_is_a_file_of_requirements() -> None:
    extras = SERVICES["migrate"]["build"]["args"]["EXTRAS"].split()

    assert extras == ["pdf", "parquet"]
    assert all((ROOT / f"requirements-{extra}.txt").is_file() for extra in extras)


def test_dockerignore_keeps_secrets_and_data_out_of_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    assert {".env", ".git", ".venv", "var", "certificates", "**/*.pem", "**/*.dump"} <= set(ignored)
    # What the commands and the health checks name stays in.
    assert not {"deploy", "deploy/gunicorn.conf.py", "deploy/alive.py"} & set(ignored)


def test_monitoring_is_asked_for_by_its_profile_and_its_files_are_what_the_programs_take() -> None:
    files, checkers = ROOT / "deploy" / "prometheus", {"promtool": "prometheus.yml", "amtool": "alertmanager.yml"}

    for program, name in checkers.items():
        if path := shutil.which(program):
            command = [path, *(["check", "config", "--syntax-only"] if program == "promtool" else ["check-config"])]
            done = subprocess.run([*command, files / name], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["monitoring"]} == MONITORING
    [receiver] = yaml.safe_load((files / "alertmanager.yml").read_text())["receivers"]
    assert receiver["webhook_configs"] == [{"url": "http://sandbox:8001/chat"}]
    grafana = ROOT / "deploy" / "grafana" / "provisioning"
    text = "".join(path.read_text() for path in grafana.rglob("*.yml"))
    assert set(re.findall(r"\$(\w+)", text)) <= SERVICES["grafana"]["environment"].keys()


# --- What the demo's commands do -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Run the demo's servers; the commands of the files themselves make database, static files and first rows."""
    here = Machine(tmp_path_factory.mktemp("compose"), DEMO)
    with here.prepared():
        wait_for(lambda: here.is_healthy("redis"), "Redis with its password")
        yield here


def get(address: str, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    try:
        with urlopen(Request(f"http://{address}{path}", headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except HTTPError as error:
        return error.code, "", dict(error.headers)
    except OSError:
        return 0, "", {}


def test_web_of_the_demo_serves_the_seeded_shop_and_hashed_static_files(machine: Machine) -> None:
    address = machine.address("web", 8000)

    with machine.running("web"):
        wait_for(lambda: get(address, "/accounts/login/")[0] == 200, "the web of the demo")
        login, catalogue = get(address, "/accounts/login/"), get(address, "/")
        style = re.search(r'href="(/static/shop\.[0-9a-f]{12}\.css)"', login[1])
        static = get(address, style[1] if style else "/")
        stranger = get(address, "/accounts/login/", Host="elsewhere.example.com")

    assert (catalogue[0], static[0], stranger[0]) == (200, 200, 400)
    assert "immutable" in static[2]["Cache-Control"]
    assert "/products/" in catalogue[1]


@pytest.mark.parametrize("name", ["web", "worker-orders", "beat"])
def test_service_of_the_demo_is_healthy_while_it_runs(machine: Machine, name: str) -> None:
    with machine.running(name):
        wait_for(lambda: machine.is_healthy(name), f"a healthy {name}")


@pytest.mark.parametrize("name", ["live", "flower", "sandbox"])
def test_page_beside_the_shop_is_healthy_while_it_runs(machine: Machine, name: str) -> None:
    with machine.running(name):
        wait_for(lambda: machine.is_healthy(name), f"a healthy {name}")

    assert not machine.is_healthy(name)
    assert SERVICES["sandbox"]["environment"]["SANDBOX_HOST"] == "0.0.0.0"


@pytest.mark.skipif(not can_be_read_only(), reason="needs the right to mount, to take away that to write")
def test_containers_can_write_to_their_own_folders_only(machine: Machine) -> None:
    elsewhere, own = machine.home / "elsewhere", machine.tmp("beat") / "own"

    machine.outcome("beat", "sh", "-c", f"echo > {own}; echo > {elsewhere} || true")

    assert own.exists()
    assert not elsewhere.exists()
