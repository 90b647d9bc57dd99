import multiprocessing
import os
import signal
import socket
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from honcho import manager
from honcho.environ import parse_procfile
from honcho.printer import Printer

from myproject import embedded

# A warm shutdown lets a worker finish the order it is at.
manager.KILL_WAIT = 30
PORTS = {"web": "PORT", "flower": "FLOWER_PORT", "sandbox": "SANDBOX_PORT", "mail": "SMTP_PORT"}
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
        # Whatever ends this command while it starts, it leaves no server behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        # A window that is closed is a Ctrl-C.
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with suppress(KeyboardInterrupt), ExitStack() as stack:
            try:
                servers = [stack.enter_context(server) for server in needed_servers()]
            except embedded.Unavailable as error:
                raise CommandError(str(error)) from error
            # After the servers, which say so when it is this very shop that runs already.
            check_ports()
            prepare(servers)
            self.stdout.write(welcome())
            processes = Manager(servers)
            processes.add_procfile(settings.BASE_DIR / "Procfile")
            processes.loop()


def check_ports() -> None:
    for name, setting in PORTS.items():
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
    """Return the servers to start here: those whose address nobody has set."""
    kinds = {"DATABASE_URL": embedded.Postgres, "CELERY_BROKER_URL": embedded.Redis}
    return [kind(settings.VAR_DIR) for variable, kind in kinds.items() if not os.environ.get(variable)]


def prepare(servers: list[embedded.Server]) -> None:
    for server in servers:
        if isinstance(server, embedded.Postgres):
            server.create_database(settings.DATABASES["default"]["NAME"])
    call_command("migrate", verbosity=0)
    call_command("sync_schedules")
    call_command("seed_demo")


def welcome() -> str:
    return WELCOME.format(site=settings.SITE_URL, flower=settings.FLOWER_URL, sandbox=settings.SANDBOX_URL)


class Manager(manager.Manager):
    """honcho's manager, which starts again what dies, instead of stopping everything."""

    def __init__(self, servers: list[embedded.Server]) -> None:
        super().__init__(Printer(Terminal()))
        self.servers = servers
        self._procmgr = Signals()

    def add_procfile(self, path: Path) -> None:
        env = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            "SANDBOX_PORT": str(settings.SANDBOX_PORT),
            "SMTP_PORT": str(settings.SMTP_PORT),
            "SANDBOX_DATA": str(settings.VAR_DIR / "sandbox"),
            "SANDBOX_WEBHOOK_URL": f"http://127.0.0.1:{settings.PORT}/webhooks/payments/",
            "STRIPE_WEBHOOK_SECRET": settings.STRIPE_WEBHOOK_SECRET,
        }
        for name, command in parse_procfile(path.read_text()).processes.items():
            self.add_process(name, f"exec {command}", env=env, cwd=settings.BASE_DIR)

    def _any_stopped(self) -> bool:
        if self._terminating:
            return True
        self._revive_servers()
        for name, process in self._processes.items():
            if process.pop("returncode", None) is not None:
                self._system_print(f"{name} died; starting it again\n")
                self._revive(process)
        return False

    def _revive_servers(self) -> None:
        for server in self.servers:
            try:
                server.keep_running()
            except embedded.Unavailable as error:
                self._system_print(f"{error}\n")
                time.sleep(1)

    def _revive(self, process: dict[str, Any]) -> None:
        # What dies at once, a server too, must not keep the machine busy.
        time.sleep(1)
        process["process"] = multiprocessing.Process(target=process["obj"].run, args=(self.events, True))
        process["process"].start()


class Terminal:
    """Standard output, which may go away before we do."""

    def write(self, text: str) -> None:
        with suppress(OSError):
            sys.stdout.write(text)
            sys.stdout.flush()

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return sys.stdout.isatty()


class Signals(manager.ProcessManager):
    """Tells only the process itself to stop: a worker then waits for its children, which go on with their tasks."""

    def terminate(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
