"""The stores of telemetry: VictoriaMetrics, VictoriaLogs and Jaeger, one light process each."""

import base64

from marketlake.settings import HealthKind

from components.service import File, Health, Importance, Port, Resources, Service, Tool, Volume

USER = "marketlake"

_JAEGER = """\
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces:
      receivers: [otlp]
      processors: [batch]
      exporters: [jaeger_storage_exporter]
  telemetry:
    metrics:
      level: none
    logs:
      level: warn
    traces:
      level: none
extensions:
  jaeger_storage:
    backends:
      badger:
        badger:
          directories:
            keys: "{volume:data}/keys"
            values: "{volume:data}/values"
          ephemeral: false
          ttl:
            spans: %(retention_hours)dh
  jaeger_query:
    storage:
      traces: badger
    http:
      endpoint: "{bind}:{port:http}"
    grpc:
      endpoint: "{bind}:{port:grpc}"
receivers:
  otlp:
    protocols:
      http:
        endpoint: "{bind}:{port:otlp}"
processors:
  batch:
    timeout: 1s
exporters:
  jaeger_storage_exporter:
    trace_storage: badger
"""


def basic_authorization(password: str) -> str:
    """Value of the HTTP ``Authorization`` header that opens the metrics and logs stores."""
    return "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()


def metrics_store_service(
    *,
    memory_mib: int = 256,
    volume_mib: int = 512,
    storage_class: str | None = None,
    cpu_millis: int = 50,
    retention_days: int = 30,
) -> Service:
    """VictoriaMetrics behind HTTP basic authentication. Secrets: ``password``."""
    return Service(
        name="metrics-store",
        program=Tool(name="victoria-metrics"),
        argv=(
            "{bin:victoria-metrics}",
            "-storageDataPath={volume:data}",
            f"-retentionPeriod={retention_days}d",
            "-selfScrapeInterval=15s",
            "-opentelemetry.usePrometheusNaming",
            *_VICTORIA,
        ),
        ports={"http": Port(preferred=8428, scheme="http")},
        volumes={
            "data": Volume(
                size_mib=volume_mib, backup="none: telemetry of the past", storage_class=storage_class
            )
        },
        files={"password": File(text="{secret:password}", secret=True)},
        environment={"GOMEMLIMIT": "{memory:90}MiB"},
        health=Health(kind=HealthKind.HTTP, port="http", path="/health"),
        resources=Resources(memory_mib=memory_mib, cpu_millis=cpu_millis),
        importance=Importance.DATA,
        console=("http", "/vmui/"),
    )


def log_store_service(
    *,
    memory_mib: int = 256,
    volume_mib: int = 512,
    storage_class: str | None = None,
    cpu_millis: int = 50,
    retention_days: int = 14,
) -> Service:
    """VictoriaLogs behind HTTP basic authentication. Secrets: ``password``."""
    return Service(
        name="log-store",
        program=Tool(name="victoria-logs"),
        argv=(
            "{bin:victoria-logs}",
            "-storageDataPath={volume:data}",
            f"-retentionPeriod={retention_days}d",
            *_VICTORIA,
        ),
        ports={"http": Port(preferred=9428, scheme="http")},
        volumes={
            "data": Volume(
                size_mib=volume_mib, backup="none: telemetry of the past", storage_class=storage_class
            )
        },
        files={"password": File(text="{secret:password}", secret=True)},
        environment={"GOMEMLIMIT": "{memory:90}MiB"},
        health=Health(kind=HealthKind.HTTP, port="http", path="/health"),
        resources=Resources(memory_mib=memory_mib, cpu_millis=cpu_millis),
        importance=Importance.DATA,
        console=("http", "/select/vmui/"),
    )


def trace_store_service(
    *,
    memory_mib: int = 256,
    volume_mib: int = 512,
    storage_class: str | None = None,
    cpu_millis: int = 50,
    retention_hours: int = 72,
) -> Service:
    """Jaeger with badger on a volume: it takes OTLP over HTTP and answers queries over HTTP and gRPC."""
    return Service(
        name="trace-store",
        program=Tool(name="jaeger", pages_need_release=True),
        argv=("{bin:jaeger}", "--config={file:config.yaml}"),
        ports={
            "http": Port(preferred=16686, scheme="http"),
            "grpc": Port(preferred=16685),
            "otlp": Port(preferred=4328, scheme="http"),
        },
        volumes={
            "data": Volume(
                size_mib=volume_mib, backup="none: telemetry of the past", storage_class=storage_class
            )
        },
        files={"config.yaml": File(text=_JAEGER % {"retention_hours": retention_hours})},
        environment={"GOMEMLIMIT": "{memory:90}MiB", "OTEL_TRACES_SAMPLER": "always_off"},
        health=Health(kind=HealthKind.HTTP, port="http", path="/api/services"),
        resources=Resources(memory_mib=memory_mib, cpu_millis=cpu_millis),
        importance=Importance.DATA,
        console=("http", "/"),
    )


_VICTORIA = (
    "-httpListenAddr={bind}:{port:http}",
    f"-httpAuth.username={USER}",
    "-httpAuth.password=file://{file:password}",
    "-memory.allowedBytes={memory:50}MiB",
    "-loggerLevel=WARN",
)
