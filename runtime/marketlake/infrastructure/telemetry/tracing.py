"""Spans, and the trace context that is handed from one process to the next."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from marketlake.infrastructure.telemetry.redaction import Redaction

_PROPAGATOR = TraceContextTextMapPropagator()
_redact = Redaction()


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    traceparent: str | None = None,
    links: Iterable[str | None] = (),
    **attributes: str | float | bool,
) -> Iterator[Span]:
    """Yield a span; an exception that leaves it marks it as failed.

    Args:
        name: what is done, without the value it is done to.
        kind: producer and consumer spans connect services in the service map.
        traceparent: W3C trace context of the caller in another process; None: the current span's child.
        links: W3C trace contexts of further causes.
        attributes: values; their names are prefixed with ``marketlake.``.
    """
    tracer = trace.get_tracer("marketlake")
    named = {f"marketlake.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(
        name,
        context=_context(traceparent),
        kind=kind,
        attributes=named,
        links=[Link(trace.get_current_span(_context(link)).get_span_context()) for link in links if link],
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except Exception as error:
            current.set_attribute("error.type", str(getattr(error, "code", type(error).__name__)))
            current.set_status(Status(StatusCode.ERROR, _redact(str(error))))
            raise


def current_traceparent() -> str | None:
    """Return the current span as a W3C ``traceparent``; None outside any span."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


def current_trace_id() -> str | None:
    """Return the current trace's id, 32 hexadecimal digits; None outside any span."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def _context(traceparent: str | None) -> Context | None:
    return _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
