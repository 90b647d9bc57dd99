"""The containers of the compose files as local processes: parsed, with hosts, ports and folders of this machine."""

import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, reduce
from pathlib import Path
from typing import Any

import psycopg
import yaml
from django.conf import settings

from myproject import embedded
from tests.ports import free_port

ROOT = settings.BASE_DIR
# Where pip puts the programs of packages.
PROGRAMS = Path(sys.executable).parent
RESET = object()
# Ports of the containers, by the name under which the others know them.
PORTS = {"postgres": [5432], "redis": [6379], "web": [8000], "live": [8002], "flower": [5555], "sandbox": [8001, 1025]}
# All that a container may write to: its volumes and /tmp. The programs' own folder is read like the rest.
READ_ONLY = """
for folder in "$@"; do [ "$folder" = -- ] && break; mount --bind "$folder" "$folder"; done || exit 1
while [ "$1" != -- ]; do shift; done; shift
mount -o remount,bind,ro / && exec "$@"
"""


class Loader(yaml.SafeLoader):
    """Knows Compose's own tag."""


Loader.add_constructor("!reset", lambda loader, node: RESET)


def compose_file(name: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return a compose file as Compose reads it with these variables in `.env`."""

    def value(found: re.Match[str]) -> str:
        return variables.get(found[1]) or found[2]

    text = re.sub(r"\$\{(\w+):?-([^}]*)\}", value, (ROOT / name).read_text())
    content: dict[str, Any] = yaml.load(text.replace("$$", "$"), Loader)
    return content


def merged(below: Any, above: Any) -> Any:
    """Lay one file over another as Compose does; it adds up lists as well, of which ours overlay only commands."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    both = below | {name: merged(below.get(name), value) for name, value in above.items()}
    return {name: value for name, value in both.items() if value is not RESET}


def production(variables: Mapping[str, str]) -> dict[str, Any]:
    return compose_file("docker-compose.yml", variables)


def demo() -> dict[str, Any]:
    """Return what `docker compose up` starts where nothing is set."""
    content: dict[str, Any] = merged(production({}), compose_file("docker-compose.override.yml", {}))
    return content


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, in order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest) for word, rest in (line.split(maxsplit=1) for line in text.splitlines() if line)]


def argument(instruction: str) -> str:
    """Return what the last such instruction of the Dockerfile says."""
    return [rest for word, rest in instructions() if word == instruction][-1]


IMAGE = dict(pair.split("=", 1) for pair in shlex.split(argument("ENV")) if not pair.startswith("PATH="))


@cache
def can_be_read_only() -> bool:
    """True where this user may mount: root, or anybody where the kernel gives out namespaces."""
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "--mount", "sh", "-c", "mount -o remount,bind,ro / && ! touch / 2>/dev/null"]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


@dataclass
class Machine:
    """Runs services of a compose file here: each host is a loopback port, each folder one below `home`."""

    home: Path
    content: dict[str, Any]
    # What `.env` holds.
    variables: Mapping[str, str] = field(default_factory=dict)
    ports: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports |= {(host, port): free_port() for host, ports in PORTS.items() for port in ports}
        for name in ("data/media", "data/sandbox", "static", "redis"):
            (self.home / name).mkdir(parents=True, exist_ok=True)

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        services: dict[str, dict[str, Any]] = self.content["services"]
        return services

    def address(self, host: str, port: int) -> str:
        return f"127.0.0.1:{self.ports[host, port]}"

    def tmp(self, service: str) -> Path:
        folder = self.home / "tmp" / service
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def here(self, text: str, service: str = "") -> str:
        """Replace addresses and folders of the containers by those of this machine."""
        moved = {f"{host}:{port}": self.address(host, port) for host, port in self.ports}
        own = {
            f"{near}:{port}": self.address(host, port) for host, port in self.ports for near in ("127.0.0.1", "0.0.0.0")
        }
        text = reduce(lambda it, pair: it.replace(*pair), (own | moved).items(), text)
        text = re.sub(r"^/certificates\b", str(self.home / "certificates"), text)
        text = re.sub(r"^/data\b", str(self.home / "data"), text.replace("/srv/static", str(self.home / "static")))
        return re.sub(r"^/tmp$", str(self.tmp(service)) if service else "/tmp", text)

    def environment(self, service: str) -> dict[str, str]:
        """Return the variables of the container."""
        own = self.services[service]
        given = IMAGE | dict(self.variables if "env_file" in own else {}) | own.get("environment", {})
        # Compose fills in variables after it has read the file: there an empty one is no null, but empty.
        env = {name: self.here("" if value is None else str(value), service) for name, value in given.items()}
        return (
            env
            | self.moved(service, env)
            | {
                "PATH": f"{PROGRAMS}:{Path(embedded._redis_server()).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOSTNAME": socket.gethostname(),
                "TMPDIR": str(self.tmp(service)),
                # As in the image, where the user has none.
                "HOME": "/nonexistent",
            }
        )

    def moved(self, service: str, env: Mapping[str, str]) -> dict[str, str]:
        """Return the ports that the process listens on, which several containers may share and processes may not."""
        listens = {"WEB_BIND": self.address("web", 8000), "METRICS_PORT": str(free_port())}
        moved = {name: value for name, value in listens.items() if name in env}
        if service == "sandbox":
            moved |= {"SANDBOX_PORT": str(self.ports["sandbox", 8001]), "SMTP_PORT": str(self.ports["sandbox", 1025])}
            moved |= {"SANDBOX_HOST": "127.0.0.1"}
        if service == "flower":
            moved |= {"FLOWER_ADDRESS": "127.0.0.1", "PORT_OFFSET": str(self.ports["flower", 5555] - 5555)}
        return moved

    def words(self, service: str) -> list[str]:
        command = self.services[service]["command"]
        words = shlex.split(command) if isinstance(command, str) else list(command)
        if service == "redis":
            here = f"redis-server - --bind 127.0.0.1 --port {self.ports['redis', 6379]} --dir {self.home / 'redis'}"
            words = [word.replace("redis-server -", here, 1) for word in words]
        return [*self.prefix(service), *words]

    def prefix(self, service: str) -> list[str]:
        """Return what comes before a command so that it can write only where its container may."""
        if not (self.services[service].get("read_only") and can_be_read_only()):
            return []
        volumes = [volume.split(":") for volume in self.services[service].get("volumes", [])]
        mounts = [folder for _, folder, *mode in volumes if mode != ["ro"]]
        folders = [str(self.home / "redis") if service == "redis" else self.here(mount, service) for mount in mounts]
        return ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *folders, str(self.tmp(service)), "--"]

    def build(self) -> None:
        """Collect the static files as the image does when it is built."""
        line = next(rest for word, rest in instructions() if word == "RUN" and "collectstatic" in rest)
        subprocess.run(["sh", "-c", line.split(" && ")[0]], cwd=ROOT, env=self.environment("migrate"), check=True)

    @contextmanager
    def servers(self) -> Iterator[None]:
        """Run database and Redis."""
        with Postgres(self) as postgres, self.running("redis"):
            postgres.create()
            yield

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Run database and Redis, and do what comes before all other services."""
        with self.servers():
            self.build()
            self.outcome("migrate")
            yield

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the shop's database, as the shop."""
        with psycopg.connect(self.environment("migrate")["DATABASE_URL"]) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def hurry(self) -> None:
        """Have beat, when it starts, queue the frequent schedules each second."""
        self.rows("UPDATE django_celery_beat_intervalschedule SET every = 1, period = 'seconds'")

    def periodic_runs(self) -> list[tuple[Any, ...]]:
        """Return schedule and worker of each periodic task that was done and stored a result."""
        return self.rows(
            "SELECT periodic_task_name, worker FROM django_celery_results_taskresult WHERE status = 'SUCCESS'"
        )

    def outcome(self, service: str, *words: str) -> str:
        """Run the service's command, or this one, to its end and return what it says; fail if it fails."""
        command = [*self.prefix(service), *words] if words else self.words(service)
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment(service), capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def running(self, *services: str) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
        processes = {}
        try:
            for service in services:
                with (self.home / f"{service}.log").open("ab") as log:
                    processes[service] = subprocess.Popen(
                        self.words(service),
                        cwd=ROOT,
                        env=self.environment(service),
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
            yield processes
        finally:
            for process in reversed(processes.values()):
                process.terminate()
            for process in processes.values():
                process.wait(60)

    def is_healthy(self, service: str) -> bool:
        """Run the health check of the service's container."""
        kind, *words = self.services[service]["healthcheck"]["test"]
        words = [self.here(word) for word in words]
        words = [word.replace("redis-cli", f"redis-cli -p {self.ports['redis', 6379]}") for word in words]
        command = words if kind == "CMD" else ["sh", "-c", *words]
        env = self.environment(service)
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=60, check=False).returncode == 0

    def last_words(self) -> str:
        logs = sorted(self.home.glob("*.log"))
        return "\n".join(f"{log.name}: {line}" for log in logs for line in log.read_text().splitlines()[-20:])


class Postgres(embedded.Postgres):
    """Like the container: by TCP and with a password, on that port, with its command's options."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.home / "postgres")
        self.machine = machine

    def prepare(self) -> None:
        super().prepare()
        rules = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(rules)

    def command(self) -> list[str | Path]:
        options = shlex.split(self.machine.services["postgres"]["command"])[1:]
        port = ["-h", "127.0.0.1", "-p", str(self.machine.ports["postgres", 5432])]
        return [*super().command(), *options, *port]

    def answers(self) -> bool:
        command: list[str | Path] = [self._binary("pg_isready"), "-q", "-h", self.sockets]
        port = str(self.machine.ports["postgres", 5432])
        return subprocess.run([*command, "-p", port], check=False).returncode == 0

    def create(self) -> None:
        """Make user and database as the image does when its volume is new."""
        env = self.machine.services["postgres"]["environment"]
        psql: list[str | Path] = [
            self._binary("psql"),
            "-h",
            self.sockets,
            "-p",
            str(self.machine.ports["postgres", 5432]),
        ]
        user = f"CREATE ROLE {env['POSTGRES_USER']} SUPERUSER LOGIN PASSWORD '{env['POSTGRES_PASSWORD']}'"
        database = f"CREATE DATABASE {env['POSTGRES_DB']} OWNER {env['POSTGRES_USER']}"
        subprocess.run([*psql, "-U", "postgres", "-qX", "-c", user, "-c", database], check=True)
