"""An environment's platform: its components, declared in the order in which they need each other."""

from importlib.metadata import version
from operator import itemgetter
from typing import Any, NotRequired, TypedDict

import pulumi
from marketlake import settings as runtime

from components.data_lake import BucketsArgs, DataLake
from components.database import Database
from components.event_bus import EventBus
from components.object_store import ObjectStore
from components.observability import Observability
from components.providers.platform_file import PlatformFile
from components.worker_pool import CollectionWorkers, FlowRuns, WorkflowWorker, flow_runs
from components.workflow_engine import WorkflowEngine
from stacks.program.external_servers import (
    external_database,
    external_event_bus,
    external_object_store,
    external_state,
    external_topics,
    runtime_identity,
    servers_of_runtime,
)
from stacks.program.resource_names import Names, default_of
from stacks.program.runtime_settings import runtime_settings
from stacks.program.target import declare_target
from stacks.settings.environment import (
    DatabaseSettings,
    EnvironmentSettings,
    EventBusSettings,
    ObjectStoreSettings,
    TelemetrySettings,
)

_ENTRYPOINT = "marketlake.workflows.collect.collect"
"""Where the flow of a collection is imported from."""


class Platform:
    """Everything that one environment consists of."""

    def __init__(self, environment: str, settings: EnvironmentSettings) -> None:
        self._environment = environment
        self._settings = settings
        self._names = Names.of(settings)
        self._declared = declare_target(environment, settings)
        self._target = self._declared.target
        self.observability = self._observability()
        self.database = self._database()
        self.object_store = self._object_store()
        self.event_bus = self._event_bus()
        self.workflow_engine = self._workflow_engine()
        self._flow_runs = self._declare_flow_runs()
        self.data_lake = self._data_lake()
        self.runtime_settings = runtime_settings(
            environment,
            self._names,
            store=self.object_store,
            bus=self.event_bus,
            database=self.database,
            engine=self.workflow_engine,
            telemetry=self.observability,
            lake=self.data_lake,
            collection=settings.collection,
            venue=settings.venue,
        )
        self.workflow_worker = self._workflow_worker()
        self.collection_workers = self._collection_workers()
        self.services = self._services()
        self.platform_file = self._platform_file()

    def export(self) -> None:
        """The stack's outputs: where everything is; secrets are in the platform file alone."""
        pulumi.export("environment", self._environment)
        pulumi.export("platformFile", self.platform_file.path)
        pulumi.export("endpoints", self.services.apply(lambda all_: _column(all_, "address")))
        pulumi.export("consoles", self.services.apply(lambda all_: _column(all_, "console")))
        pulumi.export("otlpEndpoint", self.observability.otlp_endpoint)

    def _observability(self) -> Observability:
        settings = self._settings.telemetry
        return Observability(
            "observability",
            {
                "target": self._target,
                **_sizes(settings),
                "metrics_retention_days": settings.metrics_retention_days,
                "logs_retention_days": settings.logs_retention_days,
                "traces_retention_hours": settings.traces_retention_hours,
            },
            self._declared.opts,
        )

    def _database(self) -> Database:
        settings = self._settings.database
        return Database(
            "database",
            {
                "target": self._target,
                "databases": [self._names.ledger, self._names.workflows],
                **_sizes(settings),
                **external_database(settings),
            },
            self._declared.opts,
        )

    def _object_store(self) -> ObjectStore:
        settings = self._settings.object_store
        return ObjectStore(
            "object-store",
            {"target": self._target, **_sizes(settings), **external_object_store(settings)},
            self._declared.opts,
        )

    def _event_bus(self) -> EventBus:
        settings = self._settings.event_bus
        return EventBus(
            "event-bus",
            {"target": self._target, **_sizes(settings), **external_event_bus(settings)},
            self._declared.opts,
        )

    def _workflow_engine(self) -> WorkflowEngine:
        return WorkflowEngine(
            "workflow-engine",
            {
                "target": self._target,
                "database": {
                    "host": self.database.host,
                    "port": self.database.port,
                    "name": self._names.workflows,
                    "user": self._names.workflows,
                    "password": self.database.passwords.apply(itemgetter(self._names.workflows)),
                    **external_state(self._settings.database),
                },
                "memory_mib": self._settings.workflow_engine.memory,
                "cpu_millis": self._settings.workflow_engine.cpu,
            },
            self._declared.opts,
        )

    def _declare_flow_runs(self) -> FlowRuns:
        return flow_runs(
            self._target,
            environment=self._environment,
            api_url=self.workflow_engine.api_url,
            memory_mib=self._settings.workflow_engine.worker_memory,
            cpu_millis=self._settings.workflow_engine.worker_cpu,
        )

    def _data_lake(self) -> DataLake:
        settings = self._settings
        store, bus, engine = self.object_store, self.event_bus, self.workflow_engine
        buckets: BucketsArgs = {"landing": settings.buckets.landing, "lake": settings.buckets.lake}
        if settings.object_store.external is not None:
            buckets["external"] = True
        if settings.venue.stand_in:
            buckets["stand_in"] = settings.buckets.stand_in
        return DataLake(
            "data-lake",
            {
                "object_store": {
                    "endpoint": store.endpoint,
                    "access_key_id": store.access_key_id,
                    "secret_access_key": store.secret_access_key,
                    "region": store.region,
                },
                "event_bus": {
                    "bootstrap_servers": bus.bootstrap_servers,
                    "security_protocol": bus.security_protocol,
                    "root_certificate": bus.root_certificate,
                    "sasl_mechanism": bus.sasl_mechanism,
                    "username": bus.username,
                    "password": bus.password,
                },
                **runtime_identity(settings.object_store),
                "workflow_engine": {"api_url": engine.api_url, "auth_string": engine.auth_string},
                "buckets": buckets,
                "topics": {
                    "tasks": self._names.tasks_topic,
                    "events": self._names.events_topic,
                    "dead_letters": self._names.dead_letters_topic,
                    "partitions": settings.event_bus.partitions,
                    "retention_hours": settings.event_bus.retention_hours,
                    **external_topics(settings.event_bus),
                },
                "flow": {
                    "work_pool": default_of(runtime.WorkflowEngine, "work_pool"),
                    "deployment": default_of(runtime.WorkflowEngine, "collect_deployment"),
                    "entrypoint": _ENTRYPOINT,
                    "release": version("marketlake"),
                    **self._flow_runs,
                },
            },
            pulumi.ResourceOptions(deleted_with=self._declared.root),
        )

    def _workflow_worker(self) -> WorkflowWorker:
        return WorkflowWorker(
            "workflow-worker",
            {
                "target": self._target,
                "environment": self._environment,
                "settings": self.runtime_settings.apply(runtime.Settings.to_json),
                "work_pool": self.data_lake.work_pool,
                "worker_type": self._flow_runs["worker_type"],
                "api_url": self.workflow_engine.api_url,
                "auth_string": self.workflow_engine.auth_string,
                "memory_mib": self._settings.workflow_engine.worker_memory,
                "cpu_millis": self._settings.workflow_engine.worker_cpu,
                "external_servers": servers_of_runtime(self._settings),
            },
            self._declared.opts,
        )

    def _collection_workers(self) -> CollectionWorkers:
        return CollectionWorkers(
            "collection-workers",
            {
                "target": self._target,
                "environment": self._environment,
                "settings": self.runtime_settings.apply(runtime.Settings.to_json),
                "replicas": self._settings.collection.workers,
                "max_replicas": self._settings.collection.max_workers,
                "memory_mib": self._settings.collection.memory,
                "cpu_millis": self._settings.collection.cpu,
                "external_servers": servers_of_runtime(self._settings),
            },
            self._declared.opts,
        )

    def _services(self) -> pulumi.Output[list[dict[str, Any]]]:
        own = (
            self.database,
            self.object_store,
            self.event_bus,
            self.workflow_engine,
            self.workflow_worker,
            self.collection_workers,
        )
        known = pulumi.Output.all(self.observability.services, *(component.service for component in own))
        return known.apply(lambda values: [*values[1:], *values[0]])

    def _platform_file(self) -> PlatformFile:
        def text(values: list[Any]) -> str:
            settings: runtime.Settings = values[0]
            services = tuple(runtime.ServiceInfo(**service) for service in values[1])
            return settings.model_copy(
                update={"services": services, "cluster": self._declared.cluster}
            ).to_json()

        return PlatformFile(
            "platform-file",
            {
                "path": str(runtime.platform_file(self._environment)),
                "settings": pulumi.Output.all(self.runtime_settings, self.services).apply(text),
            },
        )


class _Sizes(TypedDict):
    memory_mib: int
    cpu_millis: int
    volume_mib: int
    storage_class: NotRequired[str]


def _sizes(settings: DatabaseSettings | ObjectStoreSettings | EventBusSettings | TelemetrySettings) -> _Sizes:
    sizes: _Sizes = {"memory_mib": settings.memory, "cpu_millis": settings.cpu, "volume_mib": settings.disk}
    if settings.storage_class is not None:
        sizes["storage_class"] = settings.storage_class
    return sizes


def _column(services: list[dict[str, Any]], key: str) -> dict[str, str]:
    return {service["name"]: service[key] for service in services if service.get(key)}
