"""The settings of an environment: the schema of the `marketlake:` keys in ``Pulumi.<environment>.yaml``.

Every setting has a secure default, so an environment's file only says what differs. The same schema serves
the Pulumi program, `make validate` (which needs no tool, server or cloud) and docs/reference/settings.md.
"""

from pathlib import Path
from typing import Self

from marketlake.settings import platform_home
from pydantic import Field, field_validator, model_validator

from stacks.settings.external import ExternalDatabase, ExternalEventBus, ExternalObjectStore
from stacks.settings.section import (
    DISK_LIMIT_MIB,
    BaseUrl,
    BucketName,
    CpuMillis,
    LargeMemoryMib,
    MemoryMib,
    ObjectName,
    Section,
)
from stacks.settings.targets import ImagesSettings, KubernetesSettings, Ports, Target

__all__ = [
    "NAMESPACE",
    "BucketsSettings",
    "CollectionSettings",
    "DatabaseSettings",
    "EnvironmentSettings",
    "EventBusSettings",
    "ImagesSettings",
    "KubernetesSettings",
    "ObjectStoreSettings",
    "Ports",
    "Target",
    "TelemetrySettings",
    "VenueSettings",
    "WorkflowEngineSettings",
]

NAMESPACE = "marketlake"


class DatabaseSettings(Section):
    """The relational database (PostgreSQL): the ledger, the collections, the workflow engine's state."""

    memory: MemoryMib = 256
    """MiB; a quarter becomes shared buffers."""
    disk: int = Field(default=1024, ge=256, le=DISK_LIMIT_MIB)
    """MiB: what must be free when it is set up, or the size of its volume where volumes have one."""
    cpu: CpuMillis = 100
    """Thousandths of a core that are set aside for it in a cluster."""
    storage_class: ObjectName | None = None
    """Storage class of its volume in a cluster; by default `kubernetes.storageClass`."""
    external: ExternalDatabase | None = None
    """An external server instead of one of the platform's own."""


class ObjectStoreSettings(Section):
    """The object store (MinIO): archive files as published, and the Delta tables."""

    memory: MemoryMib = 512
    """MiB; Go's soft limit is set to 90 % of it."""
    disk: int = Field(default=4096, ge=256, le=DISK_LIMIT_MIB)
    """MiB: what must be free when it is set up, or the size of its volume where volumes have one."""
    cpu: CpuMillis = 100
    """Thousandths of a core that are set aside for it in a cluster."""
    storage_class: ObjectName | None = None
    """Storage class of its volume in a cluster; by default `kubernetes.storageClass`."""
    external: ExternalObjectStore | None = None
    """An external S3 service instead of one of the platform's own."""


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

    memory: LargeMemoryMib = 512
    """MiB; half of it becomes the Java heap, and below 256 the broker does not start."""
    disk: int = Field(default=1024, ge=512, le=DISK_LIMIT_MIB)
    """MiB: what must be free when it is set up, or the size of its volume where volumes have one."""
    cpu: CpuMillis = 100
    """Thousandths of a core that are set aside for it in a cluster."""
    storage_class: ObjectName | None = None
    """Storage class of its volume in a cluster; by default `kubernetes.storageClass`."""
    partitions: int = Field(default=8, ge=1, le=1000)
    """Partitions of the tasks topic: at most so many workers get tasks at once. Fewer than before means a
    new, empty topic."""
    retention_hours: int = Field(default=168, ge=1)
    """How long events and dead letters are kept."""
    external: ExternalEventBus | None = None
    """An external cluster instead of a broker of the platform's own."""


class WorkflowEngineSettings(Section):
    """The workflow engine (Prefect server) and the worker that runs its flows."""

    memory: LargeMemoryMib = 512
    """MiB that are counted for the server."""
    cpu: CpuMillis = 100
    """Thousandths of a core that are set aside for the server in a cluster."""
    worker_memory: LargeMemoryMib = 512
    """MiB that are counted for the worker with a run, which requests a collection; in a cluster, for the worker and
    for each run."""
    worker_cpu: CpuMillis = 100
    """Thousandths of a core that are set aside for the worker, and for each run, in a cluster."""


class CollectionSettings(Section):
    """The workers that copy and parse archive files."""

    workers: int = Field(default=2, ge=1, le=256)
    """Worker processes."""
    max_workers: int | None = Field(default=None, ge=1, le=256)
    """Up to how many there are under load in a cluster that measures it; by default always `workers`."""
    memory: LargeMemoryMib = 768
    """MiB that are counted for each."""
    cpu: CpuMillis = 200
    """Thousandths of a core that are set aside for each in a cluster; with `maxWorkers`, further ones are
    started beyond 80 % of it."""
    concurrency: int = Field(default=32, ge=1, le=256)
    """Files that one worker copies at once."""
    batches: int = Field(default=8, ge=1, le=1000)
    """Collections that one worker carries on at once; further ones wait."""
    attempts: int = Field(default=8, ge=1, le=100)
    """Tries per file before an error that may pass counts as a failure; the waits between them double."""
    requests_per_second: float = Field(default=300.0, gt=0, le=10_000)
    """Files that one worker begins to read per second and venue host, at most."""
    max_inflated_mib: int = Field(default=65_536, ge=1, le=DISK_LIMIT_MIB)
    """MiB that the CSV of one archive file may have; a larger one is refused before it is inflated."""
    max_inflation_ratio: int = Field(default=200, ge=2, le=1032)
    """How many times its compressed size a file of more than 16 MiB may inflate to; 1032 is the most that deflate
    can do, and so no limit."""


class VenueSettings(Section):
    """Where the archive of the venue Binance is read."""

    stand_in: bool = True
    """Keep a stand-in venue: a bucket of the object store that is listed and read as the exchange's, and that
    `marketlake venue publish` fills."""
    endpoint: BaseUrl | None = None
    """Base URL of an S3 service to collect from instead of the stand-in. Without it, and without a stand-in,
    the venue's public archive is read."""
    bucket: BucketName = "data.binance.vision"
    """The bucket at `endpoint`."""


class TelemetrySettings(Section):
    """Metrics, logs and traces."""

    memory: MemoryMib = 256
    """MiB for each of the three stores and for the collector."""
    disk: int = Field(default=512, ge=128, le=DISK_LIMIT_MIB)
    """MiB for each of the three stores: what must be free when it is set up, or the size of its volume where
    volumes have one."""
    cpu: CpuMillis = 50
    """Thousandths of a core that are set aside for each of the four in a cluster."""
    storage_class: ObjectName | None = None
    """Storage class of the stores' volumes in a cluster; by default `kubernetes.storageClass`."""
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
    """Absolute path of the folder that holds all the stack's data, logs and configuration, for the target
    `host`. By default `<MARKETLAKE_HOME>/<environment>`, with MARKETLAKE_HOME by default
    `/var/lib/marketlake` for root and `~/.local/share/marketlake` for everybody else."""
    keep_data: bool = False
    """Let the volumes outlive `pulumi destroy`, as `make down DATA=keep` does once."""
    ports: Ports = Ports()
    kubernetes: KubernetesSettings = KubernetesSettings()
    images: ImagesSettings = ImagesSettings()
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
