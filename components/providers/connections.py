"""Connections of the providers to the servers: addresses and identities, with secrets as Pulumi secrets."""

from typing import NotRequired, TypedDict

import pulumi
from pydantic import BaseModel, ConfigDict, Field


class _Connection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ObjectStoreConnectionArgs(TypedDict):
    """An S3 endpoint and the identity that administers it."""

    endpoint: pulumi.Input[str]
    """Base URL, e.g. ``http://127.0.0.1:9000``."""
    access_key_id: pulumi.Input[str]
    """Of an identity that may create buckets."""
    secret_access_key: pulumi.Input[str]
    """A secret."""
    region: NotRequired[pulumi.Input[str]]
    """Optional: ``us-east-1`` when omitted."""


class ObjectStoreConnection(_Connection):
    """The resolved :class:`ObjectStoreConnectionArgs`."""

    endpoint: str
    access_key_id: str
    secret_access_key: str = Field(repr=False)
    region: str = "us-east-1"


class EventBusConnectionArgs(TypedDict):
    """A Kafka cluster and the identity that administers it."""

    bootstrap_servers: pulumi.Input[str]
    """``host:port``, several joined by commas."""
    security_protocol: NotRequired[pulumi.Input[str]]
    """Optional: ``PLAINTEXT``, ``SASL_PLAINTEXT``, ``SSL`` or ``SASL_SSL``; the first when omitted."""
    root_certificate: NotRequired[pulumi.Input[str | None]]
    """Optional, with TLS: PEM text of the authorities of the brokers' certificates; those that the machine trusts when
    omitted."""
    sasl_mechanism: NotRequired[pulumi.Input[str | None]]
    """Needed with SASL: ``PLAIN``, ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``."""
    username: NotRequired[pulumi.Input[str | None]]
    """Needed with SASL: a user that may create topics."""
    password: NotRequired[pulumi.Input[str | None]]
    """A secret, needed with SASL."""


class EventBusConnection(_Connection):
    """The resolved :class:`EventBusConnectionArgs`."""

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    root_certificate: str | None = None
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = Field(default=None, repr=False)


class WorkflowEngineConnectionArgs(TypedDict):
    """A Prefect server's REST API."""

    api_url: pulumi.Input[str]
    """Ends in ``/api``."""
    auth_string: NotRequired[pulumi.Input[str]]
    """A secret, ``user:password`` for HTTP basic authentication; none when omitted."""


class WorkflowEngineConnection(_Connection):
    """The resolved :class:`WorkflowEngineConnectionArgs`."""

    api_url: str
    auth_string: str | None = Field(default=None, repr=False)


class DatabaseConnectionArgs(TypedDict):
    """A PostgreSQL server and the role that administers it."""

    host: pulumi.Input[str]
    """Name, address, or folder of the server's socket."""
    port: pulumi.Input[int]
    user: pulumi.Input[str]
    password: NotRequired[pulumi.Input[str]]
    """A secret; none when omitted, e.g. where the socket's owner is trusted."""
    database: NotRequired[pulumi.Input[str]]
    """Optional: the database to connect to, ``postgres`` when omitted."""


class DatabaseConnection(_Connection):
    """The resolved :class:`DatabaseConnectionArgs`."""

    host: str
    port: int
    user: str
    password: str | None = Field(default=None, repr=False)
    database: str = "postgres"
