"""Arguments of components for external servers; none where the platform runs its own.

Missing secrets have been reported before (:func:`stacks.settings.validation.require_secrets`).
"""

from typing import TypedDict
from urllib.parse import urlsplit

import pulumi

from components.data_lake import RuntimeIdentityArgs
from components.database import ExternalDatabaseArgs
from components.event_bus import ExternalEventBusArgs
from components.object_store import ExternalObjectStoreArgs
from components.target import ExternalServerArgs
from stacks.settings.environment import (
    DatabaseSettings,
    EnvironmentSettings,
    EventBusSettings,
    ObjectStoreSettings,
)
from stacks.settings.section import Secret

_HTTP, _HTTPS = 80, 443


class DatabaseServer(TypedDict, total=False):
    """Added to the arguments of a database."""

    external: ExternalDatabaseArgs


class ObjectStoreServer(TypedDict, total=False):
    """Added to the arguments of an object store."""

    external: ExternalObjectStoreArgs


class EventBusServer(TypedDict, total=False):
    """Added to the arguments of an event bus."""

    external: ExternalEventBusArgs


class Identity(TypedDict, total=False):
    """Added to the arguments of a data lake."""

    runtime_identity: RuntimeIdentityArgs


class StateServer(TypedDict, total=False):
    """Added to the database of a workflow engine."""

    external: ExternalServerArgs
    sslmode: str
    root_certificate: str | None


class ExternalTopics(TypedDict, total=False):
    """Added to the topics of a data lake."""

    external: bool
    replication_factor: int | None


def external_database(settings: DatabaseSettings) -> DatabaseServer:
    """Return the PostgreSQL server to use."""
    external = settings.external
    if external is None:
        return {}
    args: ExternalDatabaseArgs = {
        "host": external.host,
        "port": external.port,
        "superuser": external.superuser,
        "password": _revealed(external.password),
        "sslmode": external.sslmode.value,
    }
    if external.root_certificate is not None:
        args["root_certificate"] = external.root_certificate
    return {"external": args}


def external_object_store(settings: ObjectStoreSettings) -> ObjectStoreServer:
    """Return the S3 service to use."""
    external = settings.external
    if external is None:
        return {}
    return {
        "external": {
            "endpoint": external.endpoint,
            "region": external.region,
            "access_key_id": external.access_key_id,
            "secret_access_key": _revealed(external.secret_access_key),
        }
    }


def runtime_identity(settings: ObjectStoreSettings) -> Identity:
    """Return the identity of the runtime at that S3 service: S3 itself cannot create users."""
    external = settings.external
    if external is None:
        return {}
    identity = external.runtime or external
    return {
        "runtime_identity": {
            "access_key_id": identity.access_key_id,
            "secret_access_key": _revealed(identity.secret_access_key),
        }
    }


def external_event_bus(settings: EventBusSettings) -> EventBusServer:
    """Return the Kafka cluster to use."""
    external = settings.external
    if external is None:
        return {}
    args: ExternalEventBusArgs = {
        "bootstrap_servers": external.bootstrap_servers,
        "security_protocol": external.security_protocol.value,
    }
    if external.root_certificate is not None:
        args["root_certificate"] = external.root_certificate
    if external.has_sasl and external.username is not None:
        args["sasl_mechanism"] = external.sasl_mechanism.value
        args["username"] = external.username
        args["password"] = _revealed(external.password)
    return {"external": args}


def external_topics(settings: EventBusSettings) -> ExternalTopics:
    """Return whether the topics lie in an external cluster, and their replication factor."""
    if settings.external is None:
        return {}
    return {"external": True, "replication_factor": settings.external.replication_factor}


def external_state(settings: DatabaseSettings) -> StateServer:
    """Return the server of the workflow engine's state, and what is verified of it."""
    external = settings.external
    if external is None:
        return {}
    return {
        "external": {"host": external.host, "port": external.port},
        "sslmode": external.sslmode.value,
        "root_certificate": external.root_certificate,
    }


def servers_of_runtime(settings: EnvironmentSettings) -> list[ExternalServerArgs]:
    """Return the external servers that the runtime connects to, venues included."""
    servers: list[ExternalServerArgs] = []
    if database := settings.database.external:
        servers.append({"host": database.host, "port": database.port})
    if store := settings.object_store.external:
        servers.append(_server_of(store.endpoint))
    if bus := settings.event_bus.external:
        for broker in bus.bootstrap_servers.split(","):
            host, _, port = broker.rpartition(":")
            servers.append({"host": host, "port": int(port)})
    if settings.venue.endpoint is not None:
        servers.append(_server_of(settings.venue.endpoint))
    elif not settings.venue.stand_in:
        servers.append({"port": _HTTPS})  # the venue's public archive
    return servers


def _server_of(url: str) -> ExternalServerArgs:
    parts = urlsplit(url)
    return {
        "host": parts.hostname or "",
        "port": parts.port or (_HTTPS if parts.scheme == "https" else _HTTP),
    }


def _revealed(secret: Secret | None) -> pulumi.Output[str]:
    if secret is None:
        raise ValueError("a secret is missing: the settings were not checked for missing secrets")
    return pulumi.Output.secret(secret.text)
