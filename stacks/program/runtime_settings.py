"""The runtime's settings of an environment, from the outputs of its components."""

from operator import itemgetter
from typing import Any

import pulumi
from marketlake.settings import Settings

from components.data_lake import DataLake
from components.database import Database
from components.event_bus import EventBus
from components.object_store import ObjectStore
from components.observability import Observability
from components.workflow_engine import WorkflowEngine
from stacks.program.resource_names import Names
from stacks.settings.environment import CollectionSettings, VenueSettings

_VENUE = "binance"


def runtime_settings(
    environment: str,
    names: Names,
    *,
    store: ObjectStore,
    bus: EventBus,
    database: Database,
    engine: WorkflowEngine,
    telemetry: Observability,
    lake: DataLake,
    collection: CollectionSettings,
    venue: VenueSettings,
) -> pulumi.Output[Settings]:
    """Return the runtime's settings, a secret. Known once everything in it exists, so its workers start last."""
    parts: dict[str, Any] = {
        "object_store": {
            "endpoint": store.endpoint,
            "region": store.region,
            "access_key_id": lake.access_key_id,
            "secret_access_key": lake.secret_access_key,
            "landing_bucket": lake.landing_bucket,
            "lake_bucket": lake.lake_bucket,
        },
        "event_bus": {
            "bootstrap_servers": bus.bootstrap_servers,
            "security_protocol": bus.security_protocol,
            "root_certificate": bus.root_certificate,
            "sasl_mechanism": bus.sasl_mechanism,
            "username": bus.username,
            "password": bus.password,
            "tasks_topic": lake.tasks_topic,
            "events_topic": lake.events_topic,
            "dead_letters_topic": lake.dead_letters_topic,
            "workers_group": names.workers_group,
        },
        "database": {
            "host": database.host,
            "port": database.port,
            "name": names.ledger,
            "user": names.ledger,
            "password": database.passwords.apply(itemgetter(names.ledger)),
            "sslmode": database.sslmode,
            "root_certificate": database.root_certificate,
        },
        "workflow_engine": {
            "api_url": engine.api_url,
            "ui_url": engine.ui_url,
            "auth_string": engine.auth_string,
            "work_pool": lake.work_pool,
            "collect_deployment": lake.deployment,
        },
        "telemetry": {
            "otlp_endpoint": telemetry.otlp_endpoint,
            "metrics_url": telemetry.metrics_url,
            "logs_url": telemetry.logs_url,
            "traces_url": telemetry.traces_url,
            "username": telemetry.username,
            "password": telemetry.password,
        },
        "collection": {
            "concurrency": collection.concurrency,
            "batches": collection.batches,
            "attempts": collection.attempts,
            "requests_per_second": collection.requests_per_second,
            "max_inflated_mib": collection.max_inflated_mib,
            "max_inflation_ratio": collection.max_inflation_ratio,
        },
        "venues": _venues(venue, store, lake),
    }
    whole: pulumi.Output[dict[str, Any]] = pulumi.Output.all(**parts)
    return pulumi.Output.secret(whole.apply(lambda values: Settings(environment=environment, **values)))


def _venues(venue: VenueSettings, store: ObjectStore, lake: DataLake) -> dict[str, Any]:
    """Where the venue's archive is read; at its public address where nothing is said."""
    if venue.endpoint is not None:
        return {_VENUE: {"endpoint": venue.endpoint, "bucket": venue.bucket}}
    if venue.stand_in:
        return {_VENUE: {"endpoint": store.endpoint, "bucket": lake.stand_in_bucket}}
    return {}
