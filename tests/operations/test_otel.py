"""OpenTelemetry: one trace over the web, the message, the worker and its queries, as a collector receives it."""

import gzip
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from django.conf import settings
from django.test import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from accounts.models import User
from myproject.traces import otel
from myproject.traces.models import Run
from orders.models import InventorySync
from tests.shop import Shop, wait_for

pytestmark = pytest.mark.operations


class Collector(ThreadingHTTPServer):
    """Receives OTLP over HTTP on a free port, and keeps the spans."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.spans: list[Span] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        Thread(target=self.serve_forever, daemon=True).start()

    def trace_of(self, name: str) -> list[Span]:
        """Return all spans of the trace in which one has this name."""
        found = [span.trace_id for span in [*self.spans] if span.name == name]
        return [span for span in [*self.spans] if span.trace_id in found[:1]]


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        told = ExportTraceServiceRequest.FromString(body)
        self.server.spans += [span for one in told.resource_spans for scope in one.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running
        running.shutdown()


def ask_the_warehouse(staff: User) -> None:
    """Press the button as a browser does."""
    client = Client()
    client.force_login(staff)
    session = requests.Session()
    session.cookies.set(settings.SESSION_COOKIE_NAME, client.cookies[settings.SESSION_COOKIE_NAME].value)
    url = f"{settings.SITE_URL}/warehouse/"
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', session.get(url, timeout=10).text)
    assert token is not None
    answer = session.post(url, {"csrfmiddlewaretoken": token[1]}, headers={"Referer": url}, timeout=10)
    assert answer.status_code == 200


@pytest.mark.django_db(transaction=True)
def test_one_trace_over_web_message_worker_and_queries(
    shop: Shop, staff: User, collector: Collector, tmp_path: Path
) -> None:
    name = "run/orders.tasks.sync_inventory"
    wanted = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with shop.started_anew(tmp_path / "log", "web", "worker", **wanted):
        ask_the_warehouse(staff)
        wait_for(lambda: InventorySync.objects.filter(finished_at__isnull=False).exists(), "the run")
        wait_for(lambda: {"POST warehouse/", name} <= {span.name for span in collector.trace_of(name)}, "the trace")

    trace = {span.name: span for span in collector.trace_of(name)}
    web, message, run = trace["POST warehouse/"], trace["apply_async/orders.tasks.sync_inventory"], trace[name]
    assert message.parent_span_id == web.span_id
    assert run.parent_span_id == message.span_id
    # The picture behind the click names the trace.
    assert Run.objects.get(task="orders.tasks.sync_inventory").trace_id == run.trace_id.hex()
    queries = [span for span in collector.trace_of(name) if span.name in ("SELECT", "UPDATE")]
    parents = {span.parent_span_id for span in queries}
    assert {web.span_id, run.span_id} <= parents
    assert staff.email not in str(collector.spans)


def test_what_names_a_visitor_and_what_an_exception_says_is_not_sent(collector: Collector) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(otel.Exporter(endpoint=collector.url)))
    private = {"http.target": "/ann", "http.user_agent": "ann", "http.request.header.cookie": ("ann",)}
    tracer = provider.get_tracer("test")

    with suppress(ValueError), tracer.start_as_current_span("INSERT", attributes=private | {"http.route": "orders/"}):
        raise ValueError("Key (email)=(ann@example.com) already exists.")

    [span] = wait_for(lambda: collector.spans, "the span")
    assert "ann" not in str(span)
    assert ("ValueError" in str(span.events), span.status.code) == (True, Status.STATUS_CODE_ERROR)
    assert [attribute.key for attribute in span.attributes] == ["http.route"]


def test_missing_packages_are_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ModuleNotFoundError(name='opentelemetry')")

    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=settings.BASE_DIR,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(tmp_path), "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )

    assert done.returncode != 0
    assert "needs opentelemetry: pip install -r requirements-otel.txt" in done.stderr
