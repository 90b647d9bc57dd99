import os
import resource
from pathlib import Path

import environ

# What stands in `.env` goes before the defaults below.
if (dotenv := Path(__file__).parent.parent / ".env").exists():
    environ.Env.read_env(dotenv)
# Before the settings are read: threads share connections, and a pool is how Django lets them.
os.environ["DATABASE_POOL"] = "true"
# A page ends before gunicorn's own limits do, and gives up a lock before a visitor gives up the page.
os.environ.setdefault("DATABASE_STATEMENT_SECONDS", "20")
os.environ.setdefault("DATABASE_LOCK_SECONDS", "5")
os.environ.setdefault("DATABASE_IDLE_SECONDS", "30")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")

from logging.config import dictConfig

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from gunicorn.config import Config
from gunicorn.glogging import Logger

try:
    # In development changed views and templates are read again. What this file imports, the settings too, is inherited
    # from the parent process, and wants a new one.
    reload = settings.DEBUG
except ImproperlyConfigured as error:
    raise SystemExit(str(error)) from None

from myproject.monitoring import metrics

bind = os.environ.get("WEB_BIND", f"127.0.0.1:{settings.PORT}")
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
# Threads, so that the polling pages and a slow broker do not stop the others.
worker_class = "myproject.web.server.Worker"
threads = 4
# Per process: a slow client holds no thread, only memory and a descriptor or two (`myproject/web/connections.py`).
worker_connections = 500
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
# Each worker has a socket of its own: with one for all, kept-alive connections can end up with one worker. One that
# systemd passes on is taken instead.
reuse_port = "LISTEN_FDS" not in os.environ
timeout = 30
graceful_timeout = 25
# Where workers prove that they live; on disk it can block for seconds.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # nosec B108 # its files have no name
# Lines and headers that no browser of a customer sends; these are gunicorn's defaults but for the number.
limit_request_line = 4094
limit_request_fields = 60
limit_request_field_size = 8190
# No header says what path, scheme or person a request has. What a proxy tells, Django reads if BEHIND_PROXY says so.
forwarded_allow_ips = ""
forwarder_headers = ""
# Its default path is one for all applications of a user; signals do what we need.
control_socket_disable = True
reload_extra_files = [str(path) for path in settings.BASE_DIR.glob("templates/**/*.html")]


class DjangoLogger(Logger):
    """Writes through Django's LOGGING, as everything else does; of requests Django's side writes its own line."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        dictConfig(settings.LOGGING)


logger_class = DjangoLogger


def on_starting(server):
    if settings.METRICS_TOKEN:
        metrics.family.begin()


def pre_fork(server, worker):
    # A worker that takes the place of another goes on with its counts.
    worker.place = metrics.family.free_place({other.place for other in server.WORKERS.values()})


def post_fork(server, worker):
    metrics.family.place = worker.place
