import pytest
from marketlake.infrastructure import telemetry
from marketlake.sync.errors import TruncatedError
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def test_a_span_goes_on_with_the_callers_trace(spans: InMemorySpanExporter) -> None:
    with telemetry.span("work", traceparent=PARENT, files=3):
        assert telemetry.current_trace_id() == "a" * 32
        inner = telemetry.current_traceparent()
    assert inner is not None
    assert inner.startswith(f"00-{'a' * 32}-")
    (span,) = spans.get_finished_spans()
    assert span.parent is not None
    assert format(span.parent.span_id, "016x") == "b" * 16
    assert span.attributes == {"marketlake.files": 3}


def test_a_failed_span_says_why_without_secrets(spans: InMemorySpanExporter) -> None:
    with pytest.raises(TruncatedError), telemetry.span("work"):
        raise TruncatedError("postgresql://u:hidden@h is cut")
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "postgresql://u:***@h is cut"
    assert span.attributes == {"error.type": "truncated"}


def test_outside_any_span_there_is_no_trace() -> None:
    assert telemetry.current_traceparent() is None
    assert telemetry.current_trace_id() is None


def test_a_broken_trace_context_starts_a_new_trace(spans: InMemorySpanExporter) -> None:
    with telemetry.span("work", traceparent="nonsense"):
        assert telemetry.current_trace_id() is not None
