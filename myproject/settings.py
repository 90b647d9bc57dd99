"""All settings, for all environments, which differ only in environment variables.

On a laptop nothing needs to be set. `.env.example` lists every variable; a `.env` beside `manage.py` is read too.
"""

import logging
import re
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse_lazy
from kombu import Queue

from myproject import embedded, queues
from myproject.logs import logs
from myproject.storage.storage_url import storage
from myproject.transport import addresses
from myproject.transport.broker_url import broker
from myproject.variables import (
    BASE_DIR,
    DEBUG,
    LAB,
    LIVE_PORT,
    PORT,
    PORT_OFFSET,
    SANDBOX,
    SANDBOX_PORT,
    SMTP_PORT,
    env,
)

# Everything that is not code: data of the embedded servers, reports, collected static files.
VAR_DIR = Path(env.str("VAR_DIR", default=str(BASE_DIR / "var")))
MEDIA_ROOT = Path(env.str("MEDIA_ROOT", default=str(VAR_DIR / "media")))
# A bucket instead of that folder, where web and workers are several machines.
STORAGE_URL = env.str("STORAGE_URL", default="")
STATIC_ROOT = Path(env.str("STATIC_ROOT", default=str(VAR_DIR / "static")))

# Where a worker and beat show that they live, for `deploy/alive.py`: a folder of each one's own; empty writes nothing.
HEARTBEAT_DIR = env.str("HEARTBEAT_DIR", default="")
HEARTBEAT_SECONDS = env.float("HEARTBEAT_SECONDS", default=5)

# --- Addresses -----------------------------------------------------------------------------------------------

FLOWER_PORT = 5555 + PORT_OFFSET
SITE_NAME = "Lantern & Loom"
# What each link that leaves the shop begins with, in mails and chats.
SITE_URL = env.str("SITE_URL", default=f"http://localhost:{PORT}").rstrip("/")
FLOWER_URL = env.str("FLOWER_URL", default=f"http://localhost:{FLOWER_PORT}")
# The stand-in for the payment provider and the mail server; empty where the real ones are used.
SANDBOX_URL = env.str("SANDBOX_URL", default=f"http://localhost:{SANDBOX_PORT}" if SANDBOX else "")
# The same for our own processes: `seed_demo` tells it the history that it gives to the shop.
SANDBOX_API = env.str("SANDBOX_API", default=f"http://127.0.0.1:{SANDBOX_PORT}" if SANDBOX else "").rstrip("/")
# Where a browser finds the process `live`: behind the proxy it is the shop's own host. Empty: pages poll.
LIVE_URL = env.str("LIVE_URL", default=f"http://localhost:{LIVE_PORT}/live/" if DEBUG else "/live/")
LIVE_BIND = env.str("LIVE_BIND", default=f"127.0.0.1:{LIVE_PORT}")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"] if DEBUG else [])

# --- Security ------------------------------------------------------------------------------------------------

SECRET_KEY = env.str("SECRET_KEY", default="not-secret-and-only-for-development" if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured("Set SECRET_KEY: DEBUG is off, so this is not a laptop.")

# Former keys, for as long as what they signed may be used: sessions, links in mails, addresses of reports.
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])

# False only where no TLS stands in front, such as the demo of docker-compose.yml.
HTTPS = env.bool("HTTPS", default=not DEBUG)
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_HSTS_SECONDS = int(timedelta(days=365).total_seconds()) if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
BEHIND_PROXY = env.bool("BEHIND_PROXY", default=False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_PROXY else None
# Whom the limits on logins count: behind a proxy all visitors would otherwise be one.
ALLAUTH_TRUSTED_PROXY_COUNT = int(BEHIND_PROXY)
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
# The prefix makes browsers refuse one that another host of the domain, or a page without TLS, has set.
COOKIE_PREFIX = "__Host-" if HTTPS else ""
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}sessionid", f"{COOKIE_PREFIX}csrftoken"
MESSAGE_STORAGE = "myproject.web.pages.Messages"
# Pages carry the token in their forms; no script needs to read it.
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
# Other sites must not learn the URLs of orders and reports.
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "myproject.web.pages.csrf_failed"
# Of the pages that DEBUG shows instead of errors.
DEFAULT_EXCEPTION_REPORTER_FILTER = "myproject.logs.secrets.ErrorPages"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        # A path of ours is SELF.
        "connect-src": [SELF, *re.findall(r"^https?://[^/]+", LIVE_URL)],
        "base-uri": [NONE],
        # For logins on the way to Flower: browsers apply form-action to the redirect after a form, too.
        "form-action": [SELF, FLOWER_URL],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}

# --- Django --------------------------------------------------------------------------------------------------

# The apps of the shop, each above those before it. Their own settings are taken in at the end.
APPS = ["accounts", "orders", "reports", *(["lab"] if LAB else [])]
INSTALLED_APPS = [
    "durable",
    "myproject",
    *APPS,
    # Django's admin, with a site of our own.
    "myproject.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    # whitenoise before staticfiles, so that runserver and gunicorn serve static files alike.
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "csp",
    "django_celery_beat",
    "django_celery_results",
    "django_filters",
    "django_htmx",
]
MIDDLEWARE = [
    # First: a load balancer has no session, no host name and no HTTPS.
    "myproject.monitoring.health.probes",
    # Measures all that follows; what reads metrics knows neither host name nor HTTPS.
    "myproject.monitoring.metrics.measure",
    "django.middleware.security.SecurityMiddleware",
    # Before what answers by itself: static files have these headers too.
    "myproject.web.pages.add_headers",
    "myproject.web.pages.link_to_site_url",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # After it: static files are compressed once, when they are collected.
    "myproject.web.pages.Compression",
    # After it: a static file needs no line.
    "myproject.logs.log_context.Requests",
    "myproject.traces.recorder.note_clicks",
    "csp.middleware.CSPMiddleware",
    # Before whatever reads the body: the check of the CSRF token does.
    "myproject.web.pages.refuse_huge_requests",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "myproject.web.login.Required",
    "django.contrib.messages.middleware.MessageMiddleware",
    "orders.basket.remember_visitor",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "myproject.web.second_factor.Required",
    "myproject.web.pages.DatabaseRefusals",
    # Last: what the others answer by themselves is meant.
    "myproject.web.pages.show_own_not_found",
]
ROOT_URLCONF = "myproject.urls"
WSGI_APPLICATION = "myproject.wsgi.application"
# Of the page that describes the API. As an app it would load its 14 MB into each process; only the web needs them.
NINJA = Path(find_spec("ninja").origin).parent  # type: ignore[union-attr,arg-type]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates", NINJA / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "myproject.web.pages.links",
                "orders.basket.count",
            ],
            # Whatever names a person or a thing stands in a sentence: each template may need it.
            "builtins": ["myproject.templatetags.texts"],
        },
    }
]
LANGUAGE_CODE = "en-gb"
FORMAT_MODULE_PATH = "myproject.formats"
TIME_ZONE = env.str("TIME_ZONE", default="Europe/Berlin")
USE_TZ = True
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static", NINJA / "static"]
# Said here, since tests turn DEBUG off: each client of theirs would read all static files first.
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = DEBUG
STORAGES = {
    "default": storage(STORAGE_URL),
    # Files that only their person may read: never at an address of the media folder.
    "reports": storage(STORAGE_URL),
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "myproject.web.static_files.Storage"
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Logs ----------------------------------------------------------------------------------------------------

# One JSON object a line for machines, or lines for people.
LOG_FORMAT = env.str("LOG_FORMAT", default="console" if DEBUG else "json")
if LOG_FORMAT not in logs.FORMATS:
    raise ImproperlyConfigured(f"LOG_FORMAT is {' or '.join(logs.FORMATS)}, not {LOG_FORMAT!r}.")
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()
if LOG_LEVEL not in logs.LEVELS:
    raise ImproperlyConfigured(f"LOG_LEVEL is {', '.join(logs.LEVELS)}, not {LOG_LEVEL!r}.")
LOGGING = logs.settings(LOG_FORMAT, LOG_LEVEL)
DJANGO_STRUCTLOG_TRUST_UPSTREAM_REQUEST_ID = True
# Neither address nor account of a visitor; to ask for the latter would cost a query.
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False
DJANGO_STRUCTLOG_USER_ID_FIELD = None
# A request is one line, at its end; what went wrong for a visitor is no warning for us.
DJANGO_STRUCTLOG_STATUS_START_LOG_LEVEL = logging.DEBUG
DJANGO_STRUCTLOG_STATUS_4XX_LOG_LEVEL = logging.INFO
# Where errors are sent, with the ids of request and task; empty: nowhere, and nothing of Sentry is loaded.
SENTRY_DSN = env.str("SENTRY_DSN", default="")
if SENTRY_DSN and not re.fullmatch(r"https?://\w+(:\w+)?@[^\s/@]+/(\S+/)?\d+", SENTRY_DSN):
    raise ImproperlyConfigured("SENTRY_DSN is no DSN: copy it from the project's settings, https://KEY@HOST/NUMBER.")

# Where spans are sent, as OTLP over HTTP, with the SDK's own variables beside it; empty: nowhere, and nothing of
# OpenTelemetry is loaded.
OTEL_EXPORTER_OTLP_ENDPOINT = env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default="")
# What the traces call this process: lantern-loom, where the variable is empty.
OTEL_SERVICE_NAME = env.str("OTEL_SERVICE_NAME", default="lantern-loom")

# --- Metrics -------------------------------------------------------------------------------------------------

# Bearer token for `/metrics`; if empty, metrics are off.
METRICS_TOKEN = env.str("METRICS_TOKEN", default="")
# Where a worker and beat serve theirs, each of them on a port of its own; 0: nowhere.
METRICS_PORT = env.int("METRICS_PORT", default=0)
METRICS_BIND = env.str("METRICS_BIND", default="127.0.0.1")

# --- Database ------------------------------------------------------------------------------------------------

addresses.checked("DATABASE_URL", env.str("DATABASE_URL", default=""))
DATABASES: dict[str, dict[str, Any]] = {"default": env.db_url("DATABASE_URL", default=embedded.database_url(VAR_DIR))}
# One that died with its server is replaced before anybody is given it; asking costs a tenth of a millisecond.
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# What PostgreSQL itself puts an end to, in seconds; 0 means never. These are for workers and commands, as long as the
# longest tasks may take; deploy/gunicorn.conf.py has shorter ones, for pages.
DATABASE_LIMITS = {
    "statement_timeout": env.int("DATABASE_STATEMENT_SECONDS", default=1800),
    "lock_timeout": env.int("DATABASE_LOCK_SECONDS", default=15),
    "idle_in_transaction_session_timeout": env.int("DATABASE_IDLE_SECONDS", default=600),
    # A query ends with the process that asked for it: the hard time limit of a task kills only the process.
    "client_connection_check_interval": 5,
}
DATABASE_OPTIONS = DATABASES["default"].setdefault("OPTIONS", {})
# Behind PgBouncer in transaction mode each transaction may have another server: no cursor outlives its own, and the
# limits are set by `connect_query` there, since it takes no options.
if env.bool("DATABASE_PGBOUNCER", default=False):
    DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True
else:
    limits = (f"-c {name}={seconds}s" for name, seconds in DATABASE_LIMITS.items())
    # What the address itself asks for comes last, and wins.
    DATABASE_OPTIONS["options"] = " ".join([*limits, DATABASE_OPTIONS.get("options", "")]).strip()
# What the process `live` listens at: PgBouncer in transaction mode passes no notifications on.
LIVE_DATABASE = env.db_url("LIVE_DATABASE_URL") if env.str("LIVE_DATABASE_URL", default="") else DATABASES["default"]
# The pool serves the threads of a web process only: in a worker it opens more connections than none at all.
if env.bool("DATABASE_POOL", default=False):
    # As many as the threads of deploy/gunicorn.conf.py. After a restart of PostgreSQL the pool finds out one dead
    # connection after another, with pauses of 1, 2, 4 seconds; so a page may be slow then, but none fails. It tries for
    # a second to connect anew, and again for the next visitor: by default its pauses grow with the server's absence.
    DATABASE_OPTIONS["pool"] = {"min_size": 1, "max_size": 4, "timeout": 10, "reconnect_timeout": 1}
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 600

# In the database and not in Redis: a login asks it how often somebody has tried, and a broker that is away must not
# cost a login. All processes count together. Each write counts the rows, so they are few; expired ones make room.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "cache",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    },
    # For CELERY_RESULT_BACKEND=django-cache. A table of its own: full of results, the other would forget who has tried
    # to log in how often.
    "results": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "cache_of_results",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    },
}

# --- People --------------------------------------------------------------------------------------------------

AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = reverse_lazy("account_login")
LOGIN_REDIRECT_URL = reverse_lazy("dashboard")
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
# A new customer may shop at once; the mail that verifies the address goes out beside.
ACCOUNT_EMAIL_VERIFICATION = "optional"
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
# One address, which changes when the new one is verified; a stolen session alone cannot change it, and the old
# address is told.
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_REAUTHENTICATION_REQUIRED = True
# An attacker changes password or address first: notify the owner.
ACCOUNT_EMAIL_NOTIFICATIONS = True
# Whether staff needs a code of an authenticator app beside the password; anybody may have one.
STAFF_SECOND_FACTOR = env.bool("STAFF_SECOND_FACTOR", default=False)
MFA_TOTP_ISSUER = SITE_NAME
# One step of half a minute, for telephones whose clock is a little off.
MFA_TOTP_TOLERANCE = 1

# --- The JSON side -------------------------------------------------------------------------------------------

# How often the scripts of one person may ask: a number, and s, m, h or d.
API_RATE = env.str("API_RATE", default="120/m")
if not re.fullmatch(r"[1-9]\d*/[smhd]", API_RATE):
    raise ImproperlyConfigured(f"API_RATE is a number of requests and a unit, such as 120/m, not {API_RATE!r}.")

# --- The world outside ---------------------------------------------------------------------------------------

# Empty in processes that send no mail. A laptop without a mail server reads its mails in the log of the worker.
NO_SERVER = f"smtp://127.0.0.1:{SMTP_PORT}" if SANDBOX or not DEBUG else "consolemail://"
EMAIL_CONFIG = env.email_url_config(addresses.checked("EMAIL_URL", env.str("EMAIL_URL", default="")) or NO_SERVER)
vars().update(EMAIL_CONFIG)
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="Lantern & Loom <shop@example.com>")

# Who is told when something needs a person: apprise addresses (https://appriseit.com), with spaces between them,
# since they may hold commas. Empty: alerts are only logged and listed in the admin.
ALERT_URLS = env.str("ALERT_URLS", default=f"json://127.0.0.1:{SANDBOX_PORT}/chat" if SANDBOX else "").split()
# How long the same cause is only counted after an alert was sent.
ALERT_COOL_DOWN = timedelta(seconds=env.int("ALERT_COOL_DOWN_SECONDS", default=900))

# --- Requests ------------------------------------------------------------------------------------------------

# Of a whole request: a longer one is refused before anything of it is read.
REQUEST_MAX_BYTES = 10 * 1024 * 1024
# Of a form, beside its files. The admin's lists are the longest that we have.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 1000
# The longest form has one.
DATA_UPLOAD_MAX_NUMBER_FILES = 5

# --- Celery: each setting with its reason --------------------------------------------------------------------

CELERY_BROKER_URL, options, tls = addresses.read(
    "CELERY_BROKER_URL", env.str("CELERY_BROKER_URL", default=embedded.broker_url(VAR_DIR))
)
# Celery prefers the variable of that name to the setting, with all that its query says of TLS; these come before it.
CELERY_BROKER_READ_URL = CELERY_BROKER_WRITE_URL = CELERY_BROKER_URL
# Redis, Valkey or RabbitMQ: what each of them needs stands in `myproject/transport/broker_url.py`, with its reasons.
BROKER = broker(CELERY_BROKER_URL)
CELERY_BROKER_TRANSPORT_OPTIONS = BROKER.options | options
CELERY_BROKER_USE_SSL = tls or False
# A worker that starts before its broker waits for it.
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# As of a Redis that is full, or has become another's replica; Celery's default is to end the worker.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
# RabbitMQ only, like the pulse in seconds by which it and a worker notice that the other has gone without a word.
CELERY_BROKER_CONNECTION_TIMEOUT = 0.7
CELERY_BROKER_HEARTBEAT = 30
# One more try, then the sweep takes over: a customer does not wait for the broker.
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1}
CELERY_BROKER_POOL_ACQUIRE_TIMEOUT = 2

# Files, all three or none: `manage.py make_certificates` makes them, and from then on no message is taken unsigned.
CELERY_SECURITY_KEY = env.str("CELERY_SECURITY_KEY", default="")
CELERY_SECURITY_CERTIFICATE = env.str("CELERY_SECURITY_CERTIFICATE", default="")
CELERY_SECURITY_CERT_STORE = env.str("CELERY_SECURITY_CERT_STORE", default="")
# JSON only: unpickling a message runs whatever its sender wants. "auth" is JSON with a signature.
CELERY_TASK_SERIALIZER = (
    "auth" if CELERY_SECURITY_KEY or CELERY_SECURITY_CERTIFICATE or CELERY_SECURITY_CERT_STORE else "json"
)
CELERY_ACCEPT_CONTENT = [CELERY_TASK_SERIALIZER]
# Results do not pass the broker.
CELERY_RESULT_SERIALIZER = "json"
CELERY_RESULT_ACCEPT_CONTENT = ["json"]
# Keeps what cannot be a task as a dead letter, and waits for a broker that refuses.
CELERY_WORKER_CONSUMER = "myproject.alerting.consumer:Consumer"

# Messages carry UTC; schedules are read in the shop's own time.
CELERY_ENABLE_UTC = True
CELERY_TIMEZONE = TIME_ZONE

CELERY_TASK_QUEUES = [Queue(name, routing_key=name, **BROKER.queue) for name in queues.QUEUES]
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = queues.routes(APPS)
# A mistyped queue is an error, not a new queue that no worker reads.
CELERY_TASK_CREATE_MISSING_QUEUES = False

# Acknowledge after the work: a worker that dies leaves the message, and every task is safe to repeat.
CELERY_TASK_ACKS_LATE = True
# A killed child is a retry, counted by max_retries; reject_on_worker_lost would repeat forever.
CELERY_TASK_RETRY_ON_WORKER_LOST = True
# A lost broker connection is no reason to kill a task that is nearly done.
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
# How long a worker with REMAP_SIGTERM=SIGQUIT goes on after TERM; then it hands its tasks back and leaves. Any other
# worker leaves when its tasks have ended.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = env.float("SOFT_SHUTDOWN_SECONDS", default=10)
# CELERY_WORKER_CONCURRENCY is not set: each family of workers says `--concurrency` by what its tasks wait for. Nor is
# CELERY_TASK_ALWAYS_EAGER, for tests either: it has no retries, no limits and no commit before the task.
# Take one message at a time, so that no task waits behind a long one while another worker is idle.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# The soft limit is an exception that the task can answer; the hard one kills. Tasks set tighter ones.
CELERY_TASK_SOFT_TIME_LIMIT = 25 * 60
CELERY_TASK_TIME_LIMIT = 30 * 60

# In the Django database the admin shows them with their task's name and arguments. `django-cache` and `redis://…` keep
# them for a day, and pages that list results say what they cannot show then (docs/operations/brokers.md).
CELERY_RESULT_BACKEND, options, tls = addresses.read(
    "CELERY_RESULT_BACKEND", env.str("CELERY_RESULT_BACKEND", default="django-db")
)
CELERY_REDIS_BACKEND_USE_SSL = tls
RESULTS_IN_DATABASE = CELERY_RESULT_BACKEND == "django-db"
CELERY_RESULT_EXTENDED = True
CELERY_TASK_TRACK_STARTED = True
# None in the database: Celery's own clean-up loads whole tables; `clear_task_results` deletes in chunks.
CELERY_RESULT_EXPIRES = None if RESULTS_IN_DATABASE else timedelta(days=1)
CELERY_CACHE_BACKEND = "results"
# For `redis://…`: reading a result must not wait for an unavailable Redis; the default is two minutes.
CELERY_REDIS_SOCKET_TIMEOUT = CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = 1
CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {"retry_policy": {"max_retries": 1, "interval_start": 0}} | options
# Flower lives on these events.
CELERY_WORKER_SEND_TASK_EVENTS = True

# Schedules live in the database and are edited in the admin; `sync_schedules` puts ours there.
CELERY_BEAT_SCHEDULER = "myproject.monitoring.beat:Scheduler"

# Celery closes the database connection around every task unless told how many tasks may share it.
CELERY_DB_REUSE_MAX = 1000

# --- Apps ----------------------------------------------------------------------------------------------------

# What `make run` sets for its processes; an app may know more.
RUN_VARIABLES: dict[str, str] = {}
for app in APPS:
    if find_spec(f"{app}.settings"):
        own = vars(import_module(f"{app}.settings"))
        vars().update({name: value for name, value in own.items() if name.isupper()})
