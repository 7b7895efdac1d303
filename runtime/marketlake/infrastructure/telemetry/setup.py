"""Set telemetry up in a process, so that a collector that is down costs nothing but the telemetry."""

import logging
import socket
import sys
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TextIO
from urllib.parse import urlsplit

from opentelemetry import _logs, metrics, trace
from opentelemetry._logs import LogRecord, SeverityNumber

from marketlake.infrastructure.telemetry.redaction import Redaction, RedactionFilter, secrets_of
from marketlake.infrastructure.telemetry.tracing import current_trace_id
from marketlake.settings import Settings

_EXPORT_TIMEOUT_S = 3.0
_METRICS_EVERY_S = 10.0
_DEAD_S = 1.5
"""How long a collector may take to accept a connection at the end of a process."""
_CHATTY = ("opentelemetry", "httpx", "httpcore", "urllib3", "botocore", "boto3")

_SEVERITIES = {
    logging.DEBUG: SeverityNumber.DEBUG,
    logging.INFO: SeverityNumber.INFO,
    logging.WARNING: SeverityNumber.WARN,
    logging.ERROR: SeverityNumber.ERROR,
    logging.CRITICAL: SeverityNumber.FATAL,
}


@dataclass(frozen=True, slots=True)
class _Providers:
    traces: Any
    metrics: Any
    logs: Any
    endpoint: str


_configured: _Providers | None = None


def configure(
    service: str, settings: Settings, *, level: int = logging.INFO, stream: TextIO | None = sys.stderr
) -> None:
    """Log to `stream`, redacted and with trace ids, and export traces, metrics and logs over OTLP/HTTP.

    Calling it again changes the logging only: OpenTelemetry's providers are set once per process.

    Args:
        service: ``service.name`` of the resource, e.g. ``collection-worker``.
        settings: the environment's name, the collector's address and the secrets to keep out of everything.
        level: least level of records.
        stream: where records go as lines of text; None: nowhere but to the collector.
    """
    redaction = Redaction(secrets_of(settings))
    root = logging.getLogger()
    for handler in [known for known in root.handlers if isinstance(known, _Ours)]:
        root.removeHandler(handler)
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # An unreachable collector is reported by `marketlake status`, not by every process on every export.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    logging.getLogger("opentelemetry.sdk").setLevel(logging.CRITICAL)
    if stream is not None:
        root.addHandler(_Lines(stream, redaction))
    if settings.telemetry.otlp_endpoint is not None:
        providers = _providers(service, settings)
        root.addHandler(_Export(providers.logs, redaction))


def flush(timeout_s: float = 5.0) -> None:
    """Send what is still here; what is left after `timeout_s` seconds is lost.

    A collector that takes no connection costs :data:`_DEAD_S` at most: the exporters would ask it again and again.
    """
    providers = _configured
    if providers is None:
        return
    deadline = time.monotonic() + timeout_s
    if not _answers(providers.endpoint, min(timeout_s, _DEAD_S)):
        return
    left_ms = max(1, int((deadline - time.monotonic()) * 1000))
    senders = [
        threading.Thread(target=provider.force_flush, args=(left_ms,), daemon=True)
        for provider in (providers.traces, providers.logs, providers.metrics)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(max(0.0, deadline - time.monotonic()))


def _answers(endpoint: str, timeout_s: float) -> bool:
    """Return whether a server accepts connections there."""
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=timeout_s):
            return True
    except OSError:
        return False


class _Ours(logging.Handler):
    """Marks the handlers that :func:`configure` replaces."""


class _Lines(_Ours):
    """One line per record: time, level, logger, trace id, message."""

    def __init__(self, stream: TextIO, redaction: Redaction) -> None:
        super().__init__()
        self._stream = stream
        self.addFilter(RedactionFilter(redaction))
        self.setFormatter(
            logging.Formatter(
                "%(asctime)s.%(msecs)03d %(levelname)s %(name)s%(trace)s %(message)s", "%Y-%m-%dT%H:%M:%S"
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("prefect"):
            return  # Prefect prints its own records
        trace_id = current_trace_id()
        record.trace = f" trace_id={trace_id}" if trace_id else ""
        try:
            self._stream.write(self.format(record) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # the terminal or the pipe is gone
            pass


class _Export(_Ours):
    """Records as OTLP log records; the SDK adds the trace id."""

    def __init__(self, provider: Any, redaction: Redaction) -> None:
        super().__init__()
        self._provider = provider
        self.addFilter(RedactionFilter(redaction))

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("opentelemetry"):
            return
        attributes = {"logger": record.name}
        if record.exc_text:
            attributes["exception.stacktrace"] = record.exc_text
        self._provider.get_logger("marketlake").emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                severity_number=_SEVERITIES.get(record.levelno, SeverityNumber.INFO),
                severity_text=record.levelname,
                body=record.getMessage(),
                attributes=attributes,
            )
        )


def _providers(service: str, settings: Settings) -> _Providers:
    global _configured  # noqa: PLW0603 - OpenTelemetry's own providers are global, too
    if _configured is not None:
        return _configured
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {
            "service.name": service,
            "service.namespace": "marketlake",
            "service.version": version("marketlake"),
            "deployment.environment.name": settings.environment,
        }
    )
    base = str(settings.telemetry.otlp_endpoint).rstrip("/")
    traces = TracerProvider(resource=resource, shutdown_on_exit=False)
    traces.add_span_processor(
        BatchSpanProcessor(
            OTLPSpanExporter(endpoint=f"{base}/v1/traces", timeout=_EXPORT_TIMEOUT_S),
            schedule_delay_millis=1000,
        )
    )
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=f"{base}/v1/metrics", timeout=_EXPORT_TIMEOUT_S),
        export_interval_millis=_METRICS_EVERY_S * 1000,
        export_timeout_millis=_EXPORT_TIMEOUT_S * 1000,
    )
    meters = MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
    logs = LoggerProvider(resource=resource, shutdown_on_exit=False)
    logs.add_log_record_processor(
        BatchLogRecordProcessor(
            OTLPLogExporter(endpoint=f"{base}/v1/logs", timeout=_EXPORT_TIMEOUT_S), schedule_delay_millis=1000
        )
    )
    trace.set_tracer_provider(traces)
    metrics.set_meter_provider(meters)
    _logs.set_logger_provider(logs)
    _configured = _Providers(traces, meters, logs, base)
    return _configured
