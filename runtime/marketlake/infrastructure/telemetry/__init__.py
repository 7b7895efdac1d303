"""Traces, metrics and logs over OTLP, set up once per process; without a collector everything works the same.

Library code calls :func:`span` and the instruments of :mod:`marketlake.infrastructure.telemetry.metrics`; programs call
:func:`configure` first and :func:`flush` last.
"""

from marketlake.infrastructure.telemetry.setup import configure, flush
from marketlake.infrastructure.telemetry.tracing import current_trace_id, current_traceparent, span

__all__ = ["configure", "current_trace_id", "current_traceparent", "flush", "span"]
