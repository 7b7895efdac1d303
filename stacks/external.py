"""What components are told of servers that somebody else runs: arguments to add to theirs; none without such a server.

Secrets that are missing have been asked for before (:func:`stacks.validation.require_secrets`).
"""

from typing import TypedDict

import pulumi

from components.data_lake import RuntimeIdentityArgs
from components.database import ExternalDatabaseArgs
from components.event_bus import ExternalEventBusArgs
from components.object_store import ExternalObjectStoreArgs
from stacks.section import Secret
from stacks.settings import DatabaseSettings, EventBusSettings, ObjectStoreSettings


class DatabaseInstead(TypedDict, total=False):
    """Added to the arguments of a database."""

    external: ExternalDatabaseArgs


class ObjectStoreInstead(TypedDict, total=False):
    """Added to the arguments of an object store."""

    external: ExternalObjectStoreArgs


class EventBusInstead(TypedDict, total=False):
    """Added to the arguments of an event bus."""

    external: ExternalEventBusArgs


class RuntimeInstead(TypedDict, total=False):
    """Added to the arguments of a data lake."""

    runtime_identity: RuntimeIdentityArgs


class StateElsewhere(TypedDict, total=False):
    """Added to the database of a workflow engine."""

    external: bool
    sslmode: str
    root_certificate: str | None


class TopicsElsewhere(TypedDict, total=False):
    """Added to the topics of a data lake."""

    external: bool
    replication_factor: int | None


def database_instead(settings: DatabaseSettings) -> DatabaseInstead:
    """The PostgreSQL server to use."""
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


def state_elsewhere(settings: DatabaseSettings) -> StateElsewhere:
    """That the workflow engine's state lies in that server, and what is verified of it."""
    external = settings.external
    if external is None:
        return {}
    return {
        "external": True,
        "sslmode": external.sslmode.value,
        "root_certificate": external.root_certificate,
    }


def object_store_instead(settings: ObjectStoreSettings) -> ObjectStoreInstead:
    """The S3 service to use."""
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


def runtime_instead(settings: ObjectStoreSettings) -> RuntimeInstead:
    """Whom the runtime is to that S3 service: its users cannot be made by S3 itself."""
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


def event_bus_instead(settings: EventBusSettings) -> EventBusInstead:
    """The Kafka cluster to use."""
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


def topics_elsewhere(settings: EventBusSettings) -> TopicsElsewhere:
    """That the topics lie in somebody else's cluster, and in how many copies."""
    if settings.external is None:
        return {}
    return {"external": True, "replication_factor": settings.external.replication_factor}


def _revealed(secret: Secret | None) -> pulumi.Output[str]:
    if secret is None:
        raise ValueError("a secret is missing that should have been asked for")
    return pulumi.Output.secret(secret.text)
