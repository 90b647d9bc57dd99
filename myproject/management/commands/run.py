import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from myproject import embedded

try:
    from myproject import processes
except ModuleNotFoundError as error:
    raise SystemExit(f"`manage.py run` needs {error.name} of requirements-dev.txt: run `make install`.") from None

# The settings that name a port of a process of the Procfile.
PORTS = {"web": ["PORT"], "live": ["LIVE_PORT"], "flower": ["FLOWER_PORT"], "sandbox": ["SANDBOX_PORT", "SMTP_PORT"]}
# Where those that are not the web serve their metrics, and what `make monitoring` asks with.
METRICS_PORTS = {"worker": 9808 + settings.PORT_OFFSET, "beat": 9809 + settings.PORT_OFFSET}
METRICS_TOKEN = settings.METRICS_TOKEN or "lantern-loom"
# Those that never read changed code by themselves.
RELOADED = ("live", "worker", "beat")
WELCOME = """
  Shop      {site}             Flower   {flower}
  Admin     {site}/admin/      Sandbox  {sandbox}

  Log in as a customer:   customer@example.com   with the password   lantern-loom
  Log in as staff:        staff@example.com      with the password   lantern-loom

  Ctrl-C stops everything; the data stay. Start over with: make clean-data
"""


class Command(BaseCommand):
    help = "Run the whole shop in this terminal, with PostgreSQL and Redis where no variable names others."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        # However this command ends, it stops its processes; a closed terminal window counts as Ctrl-C.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)
        with suppress(KeyboardInterrupt), ExitStack() as stack:
            try:
                self.run(stack)
            except embedded.Unavailable as error:
                raise CommandError(str(error)) from error

    def run(self, stack: ExitStack) -> None:
        stack.callback(os.close, embedded.lock(settings.VAR_DIR / "run.lock", "The shop"))
        guard = processes.Guard(settings.VAR_DIR / "processes.json")
        guard.start()
        stack.callback(guard.stop)
        servers = [stack.enter_context(server) for server in needed_servers()]
        guard.update(pids(servers))
        check_ports()
        create_database(servers)
        watch = processes.Watch(code if settings.DEBUG else list)
        supervisor = processes.Supervisor(guard, watch, lambda: revive(servers), lambda: pids(servers))
        for name, command in procfile().items():
            supervisor.add(name, command, environment(name), settings.BASE_DIR, wants(name, watch))
        # The history is told to the sandbox as well.
        supervisor.run("sandbox", then=lambda: self.prepare(guard, supervisor.pids()))

    def prepare(self, guard: processes.Guard, others: list[int]) -> None:
        """Fill the database in a process of its own, so that its memory is free when it ends."""
        command = [sys.executable, "manage.py", "prepare"]
        # In a session of its own, so that Ctrl-C reaches this command alone, which tells it.
        child = subprocess.Popen(command, cwd=settings.BASE_DIR, stdin=subprocess.DEVNULL, start_new_session=True)
        guard.update([*others, child.pid])
        try:
            failed = child.wait()
        except KeyboardInterrupt:
            # It cancels the statement that runs, which would otherwise keep its locks.
            child.send_signal(signal.SIGINT)
            child.wait()
            raise
        if failed:
            raise CommandError("The shop has not started, for the reason above.")
        self.stdout.write(welcome())


def check_ports() -> None:
    for name, setting in ((process, setting) for process in procfile() for setting in PORTS.get(process, [])):
        port = getattr(settings, setting)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise CommandError(
                    f"Port {port} ({name}) is taken. Stop what uses it, or move this shop's ports: "
                    f"echo PORT_OFFSET={settings.PORT_OFFSET + 100} >> .env"
                ) from None


def needed_servers() -> list[embedded.Server]:
    """Return the servers to start here: those whose address is not set."""
    kinds = {"DATABASE_URL": embedded.Postgres, "CELERY_BROKER_URL": embedded.Redis}
    return [kind(settings.VAR_DIR) for variable, kind in kinds.items() if not os.environ.get(variable)]


def create_database(servers: list[embedded.Server]) -> None:
    for server in servers:
        if isinstance(server, embedded.Postgres):
            server.create_database(settings.DATABASES["default"]["NAME"])


def welcome() -> str:
    return WELCOME.format(site=settings.SITE_URL, flower=settings.FLOWER_URL, sandbox=settings.SANDBOX_URL)


def code() -> list[Path]:
    """Return the folders of our apps, those that have just been begun as well, and of our templates."""
    return [*(path.parent for path in settings.BASE_DIR.glob("*/apps.py")), settings.BASE_DIR / "templates"]


def wants(name: str, watch: processes.Watch) -> processes.Wants:
    """Return for which changed files this process starts again; the web reads those again that it has read before."""
    if name == "web":
        return lambda path: path.name == "settings.py" or path not in watch.first
    return lambda path: name in RELOADED


def procfile() -> dict[str, str]:
    lines = (settings.BASE_DIR / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def environment(name: str) -> dict[str, str]:
    """Return the variables of a process of the Procfile."""
    return {
        # One answers a developer as well as two, and each takes about 100 MB.
        "WEB_CONCURRENCY": "1",
        **os.environ,
        "METRICS_TOKEN": METRICS_TOKEN,
        "METRICS_PORT": str(METRICS_PORTS.get(name, 0)),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        # This command writes the time before each line.
        "LINES_HAVE_TIMES": "1",
        "SANDBOX_PORT": str(settings.SANDBOX_PORT),
        "SMTP_PORT": str(settings.SMTP_PORT),
        "SANDBOX_DATA": str(settings.VAR_DIR / "sandbox"),
        **settings.RUN_VARIABLES,
    }


def pids(servers: list[embedded.Server]) -> list[int]:
    return [server.process.pid for server in servers if server.process is not None]


def revive(servers: list[embedded.Server]) -> None:
    for server in servers:
        try:
            server.keep_running()
        except embedded.Unavailable as error:
            processes.say("system", str(error))
            time.sleep(1)
