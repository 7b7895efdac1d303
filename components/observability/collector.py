"""The OpenTelemetry Collector: it receives OTLP and exports to the three stores."""

from marketlake.settings import HealthKind

from components.service import File, Health, Port, Resources, Service, Tool, Volume

_CONFIGURATION = r"""
extensions:
  file_storage:
    directory: "{volume:positions}"
receivers:
  otlp:
    protocols:
      http:
        endpoint: "{bind}:{port:otlp}"
  host_metrics:
    collection_interval: 15s
    scrapers:
      cpu: {}
      memory: {}
      load: {}
      disk: {}
  file_log:
    include: ["{logs}"]
    start_at: beginning
    include_file_name: true
    storage: file_storage
    operators:
      # What the runtime logs it also sends itself, with its trace's id.
      - type: filter
        expr: 'body matches "^\\S+ [A-Z]+ marketlake[. ]"'
      - type: regex_parser
        parse_from: attributes["log.file.name"]
        regex: '^(?P<service>.+?)(-\d+)?\.log$'
        parse_to: resource
      - type: move
        from: resource["service"]
        to: resource["service.name"]
processors:
  memory_limiter:
    check_interval: 1s
    limit_mib: {memory:80}
    spike_limit_mib: {memory:20}
  # The last net: the runtime hides its secrets itself, other programs are not known to.
  redaction:
    allow_all_keys: true
    blocked_key_patterns: ['(?i).*(password|passwd|secret|authorization).*']
    blocked_values:
      - '(?i)(password|passwd|secret|authorization)["'']?\s*[:=]\s*\S+( \S{16,})?'
      - '://[^/@\s:]+:[^/@\s]+@'
    summary: silent
  batch:
    timeout: 1s
    send_batch_size: 1024
connectors:
  span_metrics:
    metrics_flush_interval: 15s
    dimensions:
      - name: venue
      - name: data_type
  service_graph:
    store:
      ttl: 10s
      max_items: 1000
exporters:
  otlp_http/metrics:
    metrics_endpoint: "{input:metrics-url}/opentelemetry/v1/metrics"
    headers:
      Authorization: "{secret:metrics-authorization}"
  otlp_http/logs:
    logs_endpoint: "{input:logs-url}/insert/opentelemetry/v1/logs"
    headers:
      Authorization: "{secret:logs-authorization}"
  otlp_http/traces:
    traces_endpoint: "{input:traces-url}/v1/traces"
service:
  extensions: [file_storage]
  telemetry:
    metrics:
      level: none
    logs:
      level: warn
  pipelines:
    traces:
      receivers: [otlp]
      processors: [memory_limiter, redaction, batch]
      exporters: [otlp_http/traces, span_metrics, service_graph]
    metrics:
      receivers: [otlp, host_metrics, span_metrics, service_graph]
      processors: [memory_limiter, redaction, batch]
      exporters: [otlp_http/metrics]
    logs:
      receivers: [otlp, file_log]
      processors: [memory_limiter, redaction, batch]
      exporters: [otlp_http/logs]
"""


def telemetry_collector_service(
    *, memory_mib: int = 256, storage_class: str | None = None, cpu_millis: int = 50
) -> Service:
    """The collector; it also reads the services' log files and the host's figures.

    Inputs: ``metrics-url``, ``logs-url``, ``traces-url`` (OTLP). Secrets: ``metrics-authorization`` and
    ``logs-authorization``, each the whole value of an HTTP ``Authorization`` header.
    """
    return Service(
        name="telemetry-collector",
        program=Tool(name="otel-collector"),
        argv=("{bin:otel-collector}", "--config={file:config.yaml}"),
        ports={"otlp": Port(preferred=4318, scheme="http")},
        volumes={
            "positions": Volume(
                size_mib=16, backup="none: positions in log files", storage_class=storage_class
            )
        },
        files={"config.yaml": File(text=_CONFIGURATION, secret=True)},
        environment={"GOMEMLIMIT": "{memory:80}MiB"},
        health=Health(kind=HealthKind.TCP, port="otlp"),
        resources=Resources(memory_mib=memory_mib, cpu_millis=cpu_millis),
        calls=("metrics-store", "log-store", "trace-store"),
    )
