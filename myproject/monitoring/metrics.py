"""What is counted while it happens, and where Prometheus reads it.

The processes of one gunicorn or one worker are a family: each counts into files of its own in the family's folder, and
whichever is asked adds them up. A file belongs to a place in the family, not to a process: who takes the place of
a process that died goes on with its counts, so that nothing is lost and no files pile up. There are no gauges among
them, so a process that dies leaves none behind; what stands in rows and queues is asked instead (`gauges.py`).
"""

import atexit
import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import timedelta
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socket import SHUT_RDWR
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread, Timer
from typing import Any

from billiard import current_process
from celery import signals
from celery.exceptions import Reject
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from durable.task import Task, is_second_report
from myproject.bearer import challenge, refusal
from myproject.web.pages import View

log = logging.getLogger(__name__)

PATH = "/metrics"
FOLDER = "shop-metrics-"
# Seconds until an unlocked folder counts as abandoned: a new family may not have locked it yet.
FOLDER_IS_NEW = 60
# Seconds that a client of a worker's or beat's own server may take, to ask and to read.
PATIENCE = 5
LONGEST_WAIT = timedelta(days=7).total_seconds()
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
RUN_TIMES = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
QUEUE_TIMES = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 30, 60, 300, 900, 3600)
REQUEST_TIMES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

COUNTED = CollectorRegistry()
# What `gauges.py` asks for; only the web asks, since one answer is enough.
ASKED = CollectorRegistry()
TASKS = Counter("shop_tasks", "Attempts of tasks that ended, by outcome.", ["task", "outcome"], registry=COUNTED)
RETRIES = Counter(
    "shop_task_retries", "Retries, by the error that made for them.", ["task", "reason"], registry=COUNTED
)
RUN_TIME = Histogram(
    "shop_task_seconds", "How long tasks that succeeded ran.", ["task"], buckets=RUN_TIMES, registry=COUNTED
)
QUEUE_TIME = Histogram(
    "shop_task_queue_seconds", "From sending a task to its start.", ["queue"], buckets=QUEUE_TIMES, registry=COUNTED
)
MESSAGES = Counter("shop_messages", "Messages sent to the broker.", ["queue"], registry=COUNTED)
REQUESTS = Counter("shop_requests", "Requests that were answered.", ["view", "method", "status"], registry=COUNTED)
REQUEST_TIME = Histogram(
    "shop_request_seconds", "How long an answer took.", ["view"], buckets=REQUEST_TIMES, registry=COUNTED
)


class Family:
    """The processes that count together; `place` is this one's, which no other living one has."""

    place = "main"
    # Empty where there is no family: a single process counts in its memory.
    folder = ""
    lock: int

    def begin(self) -> None:
        """Make the folder, before there is any other process of the family."""
        clear_folders()
        self.folder = tempfile.mkdtemp(prefix=FOLDER)
        # Each process of the family inherits the lock: it is free when the last one is gone.
        self.lock = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        # The client library writes there.
        os.environ.update(PROMETHEUS_MULTIPROC_DIR=self.folder)
        values.ValueClass = values.MultiProcessValue(lambda: self.place)
        atexit.register(self.end, os.getpid())

    def end(self, founder: int) -> None:
        if os.getpid() == founder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def free_place(self, taken: Collection[str]) -> str:
        return next(place for number in range(len(taken) + 1) if (place := f"web{number}") not in taken)


family = Family()


def clear_folders() -> None:
    """Remove the folders of families that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > FOLDER_IS_NEW and is_left_behind(folder):
                shutil.rmtree(folder, ignore_errors=True)


def is_left_behind(folder: Path) -> bool:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


# --- Tasks ---


def count_tasks() -> None:
    """Count this process's tasks and messages."""
    handlers: dict[Any, Callable[..., None]] = {
        signals.task_prerun: note_time_in_queue,
        signals.task_success: count_success,
        signals.task_failure: count_failure,
        signals.task_retry: count_retry,
        signals.task_revoked: count_revoked,
        signals.after_task_publish: count_message,
    }
    for signal, handler in handlers.items():
        signal.connect(handler, weak=False)


def note_time_in_queue(task: Task, **kwargs: Any) -> None:
    """Note how long the message waited; not of one that was to wait, nor of one that was sent by other code."""
    sent_at = getattr(task.request, "sent_at", None)
    if isinstance(sent_at, float) and not task.request.eta:
        queue = (task.request.delivery_info or {}).get("routing_key")
        # One that was sent an infinite time ago would be in the sum forever.
        QUEUE_TIME.labels(known_queue(queue)).observe(min(max(0, time.time() - sent_at), LONGEST_WAIT))


def count_success(sender: Task, runtime: float, **kwargs: Any) -> None:
    TASKS.labels(sender.name, "succeeded").inc()
    RUN_TIME.labels(sender.name).observe(runtime)


def count_failure(sender: Task, exception: BaseException, task_id: str, **kwargs: Any) -> None:
    if not is_second_report(sender, exception, task_id):
        TASKS.labels(sender.name, "rejected" if isinstance(exception, Reject) else "failed").inc()


def count_retry(sender: Task, reason: Any, **kwargs: Any) -> None:
    """The reason is the class of the error, never its message."""
    TASKS.labels(sender.name, "retried").inc()
    RETRIES.labels(sender.name, type(getattr(reason, "exc", None) or reason).__name__).inc()


def count_revoked(sender: Task, expired: bool = False, **kwargs: Any) -> None:
    TASKS.labels(sender.name, "expired" if expired else "revoked").inc()


def count_message(routing_key: str = "", **kwargs: Any) -> None:
    MESSAGES.labels(known_queue(routing_key)).inc()


def known_queue(name: str | None) -> str:
    # RabbitMQ keeps what is for later under an address that ends in the queue's name.
    queue = (name or "").rpartition(".")[2]
    return queue if queue in queue_names() else "other"


@cache
def queue_names() -> frozenset[str]:
    return frozenset(queue.name for queue in settings.CELERY_TASK_QUEUES)


# --- The web ---


def measure(get_response: View) -> View:
    """Middleware: answer `/metrics`, and count all other requests.

    It stands first, for its own sake, too: Prometheus knows neither the shop's host name, nor HTTPS, nor a login.
    """

    def measured(request: HttpRequest) -> HttpResponseBase:
        if request.path == PATH:
            return metrics_page(request)
        if not settings.METRICS_TOKEN:
            return get_response(request)
        start = time.perf_counter()
        response = get_response(request)
        # A disk that is full costs a count, not a page.
        with suppress(OSError):
            count_request(request, response, time.perf_counter() - start)
        return response

    return measured


def count_request(request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
    """Count by view name and known method: arbitrary paths and methods would make unlimited labels."""
    view = request.resolver_match.view_name if request.resolver_match else "none"
    method = request.method if request.method in METHODS else "other"
    REQUESTS.labels(view, method, f"{response.status_code // 100}xx").inc()
    REQUEST_TIME.labels(view).observe(seconds)


def metrics_page(request: HttpRequest) -> HttpResponse:
    status = refusal(request.headers.get("Authorization", ""))
    if status:
        return HttpResponse(status.phrase, status=status, content_type="text/plain", headers=challenge(status))
    return HttpResponse(counts() + generate_latest(ASKED), content_type=CONTENT_TYPE_LATEST)


def counts() -> bytes:
    """Return what the whole family has counted; what this process has, where there is none."""
    if not family.folder:
        return generate_latest(COUNTED)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, family.folder)
    return generate_latest(registry)


# --- Workers and beat: a server of their own ---


class Handler(BaseHTTPRequestHandler):
    def setup(self) -> None:
        super().setup()
        # For all of it: a timeout of the socket begins anew with each byte.
        self.deadline = Timer(PATIENCE, self.hang_up)
        self.deadline.start()

    def finish(self) -> None:
        self.deadline.cancel()
        super().finish()

    def hang_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(SHUT_RDWR)

    def do_GET(self) -> None:
        status = refusal(self.headers.get("Authorization", "")) if self.path == PATH else HTTPStatus.NOT_FOUND
        body = status.phrase.encode() if status else counts()
        self.send_response(status or HTTPStatus.OK)
        headers = {"Content-Type": "text/plain" if status else CONTENT_TYPE_LATEST, "Content-Length": str(len(body))}
        for name, value in (headers | (challenge(status) if status else {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


class Server(ThreadingMixIn, TCPServer):
    """A thread for each client, so that a slow one keeps Prometheus waiting no longer than it takes by itself."""

    allow_reuse_address = daemon_threads = True
    block_on_close = False

    def handle_error(self, *args: Any) -> None:
        log.info("A client of the metrics went away")


class OwnServer:
    """The metrics server of a worker or beat, in a thread of its main process."""

    server: Server | None = None

    def start(self, **kwargs: Any) -> None:
        """Serve, if a token is set; a port in use costs the metrics, not the work."""
        if not (settings.METRICS_PORT and settings.METRICS_TOKEN):
            return
        family.begin()
        try:
            self.server = Server((settings.METRICS_BIND, settings.METRICS_PORT), Handler)
        except OSError as error:
            log.error("No metrics: %s:%s cannot be had: %s", settings.METRICS_BIND, settings.METRICS_PORT, error)
            return
        Thread(target=self.server.serve_forever, name="metrics", daemon=True).start()

    def leave(self, **kwargs: Any) -> None:
        """In a child: take a place, and let go of the port, which could outlive the main process otherwise."""
        # A pool without children has its tasks in this process.
        if (index := getattr(current_process(), "index", None)) is None:
            return
        family.place = f"child{index}"
        if self.server:
            self.server.server_close()


own_server = OwnServer()
signals.worker_init.connect(own_server.start)
signals.beat_init.connect(own_server.start)
signals.worker_process_init.connect(own_server.leave)
