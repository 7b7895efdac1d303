"""The settings of an environment: the schema of the `marketlake:` keys in ``Pulumi.<environment>.yaml``.

Every setting has a secure default, so an environment's file only says what differs. The same schema serves
the Pulumi program, `make validate` (which needs no tool, server or cloud) and docs/reference/settings.md.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from marketlake.settings import platform_home
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from components.providers.bucket import BUCKET_NAME

NAMESPACE = "marketlake"

PortNumber = Annotated[int, Field(ge=1024, le=65535)]
_MEMORY_LIMIT_MIB = 1_048_576
MemoryMib = Annotated[int, Field(ge=64, le=_MEMORY_LIMIT_MIB)]


def _bucket_name(name: str) -> str:
    if not re.fullmatch(BUCKET_NAME, name):
        raise ValueError("is no bucket name: 3 to 63 lower-case letters, digits, dots and hyphens")
    return name


BucketName = Annotated[str, AfterValidator(_bucket_name)]


class Section(BaseModel):
    """A group of settings. Keys are written in camel case, as Pulumi's own."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, use_attribute_docstrings=True
    )


class Target(StrEnum):
    """Where the services run."""

    HOST = "host"
    """Supervised processes on this machine, on the loopback interface only."""


class Ports(Section):
    """Ports on 127.0.0.1. One that is named here is taken, or `pulumi up` fails, saying who holds it; one
    that is not named is the usual number of that server, or the next free one.
    """

    database: PortNumber | None = None
    """PostgreSQL; usually 5432."""
    object_store: PortNumber | None = None
    """The S3 API; usually 9000."""
    object_store_console: PortNumber | None = None
    """The object store's web page; usually 9001."""
    event_bus: PortNumber | None = None
    """Kafka for clients; usually 9092."""
    event_bus_controller: PortNumber | None = None
    """Kafka's controller, for itself; usually 9093."""
    workflow_engine: PortNumber | None = None
    """Prefect's API and web page; usually 4200."""
    metrics_store: PortNumber | None = None
    """VictoriaMetrics and its web page; usually 8428."""
    log_store: PortNumber | None = None
    """VictoriaLogs and its web page; usually 9428."""
    trace_store: PortNumber | None = None
    """Jaeger's queries and web page; usually 16686."""
    trace_store_grpc: PortNumber | None = None
    """Jaeger's queries by gRPC; usually 16685."""
    trace_store_otlp: PortNumber | None = None
    """Where Jaeger takes spans from the collector; usually 4328."""
    telemetry_collector: PortNumber | None = None
    """OTLP over HTTP, for everything that is measured; usually 4318."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        owners: dict[int, str] = {}
        for name in type(self).model_fields:
            port = getattr(self, name)
            if port is None:
                continue
            if port in owners:
                raise ValueError(
                    f"{to_camel(owners[port])} and {to_camel(name)} are both {port}: give each its own"
                )
            owners[port] = name
        return self

    def by_service(self) -> dict[str, dict[str, int]]:
        """The numbers that are named here, by the name that the port has in the Service, by service."""
        named = {
            service: {
                port: number for port, key in keys.items() if (number := getattr(self, key)) is not None
            }
            for service, keys in _PORTS_BY_SERVICE.items()
        }
        return {service: numbers for service, numbers in named.items() if numbers}


_PORTS_BY_SERVICE: Mapping[str, Mapping[str, str]] = {
    "database": {"sql": "database"},
    "object-store": {"api": "object_store", "console": "object_store_console"},
    "event-bus": {"client": "event_bus", "controller": "event_bus_controller"},
    "workflow-engine": {"api": "workflow_engine"},
    "metrics-store": {"http": "metrics_store"},
    "log-store": {"http": "log_store"},
    "trace-store": {"http": "trace_store", "grpc": "trace_store_grpc", "otlp": "trace_store_otlp"},
    "telemetry-collector": {"otlp": "telemetry_collector"},
}


class DatabaseSettings(Section):
    """The relational database (PostgreSQL): the ledger, the collections, the workflow engine's state."""

    memory: MemoryMib = 256
    """MiB; a quarter becomes shared buffers."""
    disk: int = Field(default=1024, ge=256)
    """MiB that must be free when it is set up."""


class ObjectStoreSettings(Section):
    """The object store (MinIO): archive files as published, and the Delta tables."""

    memory: MemoryMib = 512
    """MiB; Go's soft limit is set to 90 % of it."""
    disk: int = Field(default=4096, ge=256)
    """MiB that must be free when it is set up."""


class BucketsSettings(Section):
    """Names of the buckets."""

    landing: BucketName = "landing"
    """Archive files as the venue published them, all versions."""
    lake: BucketName = "lake"
    """Delta tables: catalogue, bronze, silver, quarantine."""
    stand_in: BucketName = "venue"
    """The stand-in venue's archive, if there is one."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [self.landing, self.lake, self.stand_in]
        if len(set(names)) < len(names):
            raise ValueError(
                f"landing, lake and standIn are {', '.join(names)}: give each bucket its own name"
            )
        return self


class EventBusSettings(Section):
    """The event bus (Kafka): collection tasks, events, dead letters."""

    memory: int = Field(default=512, ge=256, le=_MEMORY_LIMIT_MIB)
    """MiB; half of it becomes the Java heap, and below 256 the broker does not start."""
    disk: int = Field(default=1024, ge=512)
    """MiB that must be free when it is set up."""
    partitions: int = Field(default=8, ge=1, le=1000)
    """Partitions of the tasks topic: at most so many workers get tasks at once. Fewer than before means a
    new, empty topic."""
    retention_hours: int = Field(default=168, ge=1)
    """How long events and dead letters are kept."""


class WorkflowEngineSettings(Section):
    """The workflow engine (Prefect server) and the worker that runs its flows."""

    memory: int = Field(default=512, ge=256, le=_MEMORY_LIMIT_MIB)
    """MiB that are counted for the server."""
    worker_memory: int = Field(default=512, ge=256, le=_MEMORY_LIMIT_MIB)
    """MiB that are counted for the worker with a running flow."""
    concurrent_runs: int = Field(default=4, ge=1, le=1000)
    """Collections that run at once; further ones wait."""


class CollectionSettings(Section):
    """The workers that copy and parse archive files."""

    workers: int = Field(default=2, ge=1, le=256)
    """Worker processes."""
    memory: int = Field(default=768, ge=256, le=_MEMORY_LIMIT_MIB)
    """MiB that are counted for each."""
    concurrency: int = Field(default=2, ge=1, le=64)
    """Files that one worker works on at once."""
    attempts: int = Field(default=6, ge=1, le=100)
    """Tries per file before an error that may pass counts as a failure; the waits between them double."""
    requests_per_second: float = Field(default=20.0, gt=0, le=10_000)
    """Files that one worker begins to read per second and venue host, at most."""


class VenueSettings(Section):
    """Where the archive of the venue Binance is read."""

    stand_in: bool = True
    """Keep a stand-in venue: a bucket of the object store that is listed and read as the exchange's, and that
    `marketlake venue publish` fills."""
    endpoint: str | None = None
    """Base URL of an S3 service to collect from instead of the stand-in. Without it, and without a stand-in,
    the venue's public archive is read."""
    bucket: BucketName = "data.binance.vision"
    """The bucket at `endpoint`."""

    @field_validator("endpoint")
    @classmethod
    def _base_url(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not re.fullmatch(r"https?://[^/\s]+", endpoint):
            raise ValueError("is no base URL: scheme, host and perhaps a port, e.g. https://s3.example.com")
        return endpoint


class TelemetrySettings(Section):
    """Metrics, logs and traces."""

    memory: MemoryMib = 256
    """MiB for each of the three stores and for the collector."""
    disk: int = Field(default=512, ge=128)
    """MiB that must be free for each of the three stores when it is set up."""
    metrics_retention_days: int = Field(default=30, ge=1, le=3650)
    """How long VictoriaMetrics keeps metrics."""
    logs_retention_days: int = Field(default=14, ge=1, le=3650)
    """How long VictoriaLogs keeps logs."""
    traces_retention_hours: int = Field(default=72, ge=1, le=87_600)
    """How long Jaeger keeps traces."""


class EnvironmentSettings(Section):
    """Everything that can be set of one environment."""

    target: Target = Target.HOST
    """Where the services run."""
    data_folder: Path | None = None
    """Absolute path of the folder that holds all the stack's data, logs and configuration. By default
    `<MARKETLAKE_HOME>/<environment>`, with MARKETLAKE_HOME by default `/var/lib/marketlake` for root and
    `~/.local/share/marketlake` for everybody else."""
    keep_data: bool = False
    """Let the data folder's volumes outlive `pulumi destroy`, as `make down DATA=keep` does once."""
    ports: Ports = Ports()
    database: DatabaseSettings = DatabaseSettings()
    object_store: ObjectStoreSettings = ObjectStoreSettings()
    buckets: BucketsSettings = BucketsSettings()
    event_bus: EventBusSettings = EventBusSettings()
    workflow_engine: WorkflowEngineSettings = WorkflowEngineSettings()
    collection: CollectionSettings = CollectionSettings()
    venue: VenueSettings = VenueSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @field_validator("data_folder")
    @classmethod
    def _own_folder(cls, folder: Path | None) -> Path | None:
        if folder is None:
            return None
        if not folder.is_absolute() or len(folder.parts) < 3:
            raise ValueError(
                "must be an absolute path of a folder of its own, at least two levels deep (destroying the "
                "stack deletes it), e.g. /srv/marketlake/local"
            )
        return folder

    def folder(self, environment: str) -> Path:
        """The stack's data folder."""
        return self.data_folder or platform_home() / environment
