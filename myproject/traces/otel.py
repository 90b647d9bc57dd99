"""Spans for OpenTelemetry: requests, tasks and queries in one trace, over web and workers.

Loaded only where `OTEL_EXPORTER_OTLP_ENDPOINT` is set. The SDK reads its other variables itself, such as
`OTEL_SERVICE_NAME` and `OTEL_TRACES_SAMPLER`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
    from opentelemetry.trace import Status
except ModuleNotFoundError as error:
    raise ImproperlyConfigured(
        f"OTEL_EXPORTER_OTLP_ENDPOINT needs {error.name}: pip install -r requirements-otel.txt"
    ) from None

from . import recorder

# What names a visitor, or may hold a signature: the span's name has the pattern of the address. And the words of an
# exception, which repeat what a statement or a mail server was given; logs and Sentry have them.
PRIVATE = (
    *("http.target", "http.url", "url.path", "url.query", "url.full"),
    *("http.user_agent", "user_agent.original", "net.peer.ip", "net.peer.name", "client.address", "client.port"),
    *("exception.message", "exception.stacktrace", "http.request.header"),
)


class Exporter(OTLPSpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return super().export([without_private(span) for span in spans])


def start(service: str) -> None:
    """Send spans of this process, and of those that it forks."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(Exporter()))
    trace.set_tracer_provider(provider)
    # Probes and metrics come each second, and say nothing.
    DjangoInstrumentor().instrument(excluded_urls="livez,readyz,healthz,metrics,static/")
    CeleryInstrumentor().instrument()
    PsycopgInstrumentor().instrument()
    recorder.trace_id = current_id


def current_id() -> str:
    """Return the id of the current trace, as collectors write it; empty outside of a span."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def without_private(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        span.name,
        span.context,
        span.parent,
        span.resource,
        attributes=public(span.attributes),
        events=[Event(event.name, public(event.attributes), event.timestamp) for event in span.events],
        links=span.links,
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        # Without its description, which are words of the exception.
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )


def public(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (attributes or {}).items() if not name.startswith(PRIVATE)}
