"""Metrics, logs and traces: their stores and the collector."""

from typing import NotRequired, TypedDict

import pulumi

from components.component import Component, known_after
from components.observability.collector import telemetry_collector_service
from components.observability.stores import (
    USER,
    basic_authorization,
    log_store_service,
    metrics_store_service,
    trace_store_service,
)
from components.providers.secret import GeneratedSecret
from components.target import TargetArgs
from components.targets import target_of


class ObservabilityArgs(TypedDict):
    """Arguments of the observability of the platform."""

    target: TargetArgs
    """Where it runs."""
    memory_mib: NotRequired[int]
    """Optional: of each of the three stores and of the collector; 256 when omitted."""
    volume_mib: NotRequired[int]
    """Optional: room for each store that has to be free at first; 512 when omitted."""
    storage_class: NotRequired[str]
    """Optional: of their volumes, where the target offers several; the usual one when omitted."""
    cpu_millis: NotRequired[int]
    """Optional: thousandths of a core that are set aside for each of the four, where the target can; 50 when
    omitted."""
    metrics_retention_days: NotRequired[int]
    """Optional: 30 when omitted."""
    logs_retention_days: NotRequired[int]
    """Optional: 14 when omitted."""
    traces_retention_hours: NotRequired[int]
    """Optional: 72 when omitted."""


class Observability(Component):
    """Stores of metrics, logs and traces, and the collector before them."""

    otlp_endpoint: pulumi.Output[str]
    """OTLP over HTTP, without the ``/v1/…`` path."""
    metrics_url: pulumi.Output[str]
    """Base URL of the store of metrics: VictoriaMetrics."""
    logs_url: pulumi.Output[str]
    """Base URL of the store of logs: VictoriaLogs."""
    traces_url: pulumi.Output[str]
    """Base URL of the store of traces: Jaeger."""
    username: pulumi.Output[str]
    """HTTP basic authentication of the metrics and logs stores."""
    password: pulumi.Output[str]
    """A secret."""
    services: pulumi.Output[list[dict[str, str]]]
    """How `marketlake status` finds them."""

    def __init__(
        self, name: str, args: ObservabilityArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the stores and the collector."""
        super().__init__(name, opts)
        target = target_of(args["target"])
        memory, volume = args.get("memory_mib", 256), args.get("volume_mib", 512)
        storage, cpu = args.get("storage_class"), args.get("cpu_millis", 50)
        password = GeneratedSecret(f"{name}-password", opts=self._child())
        metrics = target.deploy(
            f"{name}-metrics-store",
            metrics_store_service(
                memory_mib=memory,
                volume_mib=volume,
                storage_class=storage,
                cpu_millis=cpu,
                retention_days=args.get("metrics_retention_days", 30),
            ),
            inputs={},
            secrets={"password": password.value},
            opts=self._child(),
        )
        logs = target.deploy(
            f"{name}-log-store",
            log_store_service(
                memory_mib=memory,
                volume_mib=volume,
                storage_class=storage,
                cpu_millis=cpu,
                retention_days=args.get("logs_retention_days", 14),
            ),
            inputs={},
            secrets={"password": password.value},
            opts=self._child(),
        )
        traces = target.deploy(
            f"{name}-trace-store",
            trace_store_service(
                memory_mib=memory,
                volume_mib=volume,
                storage_class=storage,
                cpu_millis=cpu,
                retention_hours=args.get("traces_retention_hours", 72),
            ),
            inputs={},
            secrets={},
            opts=self._child(),
        )
        authorization = password.value.apply(basic_authorization)
        collector = target.deploy(
            f"{name}-collector",
            telemetry_collector_service(memory_mib=memory, storage_class=storage, cpu_millis=cpu),
            inputs={
                "metrics-url": metrics.url("http"),
                "logs-url": logs.url("http"),
                "traces-url": traces.url("otlp"),
            },
            secrets={"metrics-authorization": authorization, "logs-authorization": authorization},
            opts=self._child(),
        )
        self.otlp_endpoint = collector.url("otlp")
        self.metrics_url = metrics.url("http")
        self.logs_url = logs.url("http")
        self.traces_url = traces.url("http")
        self.username = pulumi.Output.from_input(USER)
        self.password = known_after(password.value, collector.resource)
        self.services = pulumi.Output.all(*(store.info for store in (metrics, logs, traces, collector)))
        self.register_outputs(
            {
                "otlp_endpoint": self.otlp_endpoint,
                "metrics_url": self.metrics_url,
                "logs_url": self.logs_url,
                "traces_url": self.traces_url,
                "username": self.username,
                "password": self.password,
                "services": self.services,
            }
        )
