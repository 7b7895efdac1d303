"""Settings of external servers: where one is named, the platform deploys none of its own."""

from enum import StrEnum
from typing import Annotated

from marketlake.settings import SslMode
from pydantic import Field

from stacks.settings.section import BaseUrl, Certificates, HostName, Secret, Section, matching


class ExternalDatabase(Section):
    """An external PostgreSQL server. The databases and their owners are adopted, or created there."""

    host: HostName
    """Its name or address."""
    port: int = Field(default=5432, ge=1, le=65535)
    """Its port."""
    superuser: str = Field(default="postgres", min_length=1)
    """A role that may create databases and roles."""
    password: Secret | None = None
    """That role's password, a secret; `up` asks for it."""
    sslmode: SslMode = SslMode.VERIFY_FULL
    """What is verified of the server before any credential or query is sent to it: `verify-full` its certificate and
    its name in it, `verify-ca` its certificate alone; nothing with `require`, though connections are encrypted, with
    `prefer`, where they are if it can, and with `disable`, where they are not."""
    root_certificate: Certificates | None = None
    """The certificates (PEM text) of the authorities that its certificate comes from; by default those that are
    trusted where the platform runs."""
    prefix: Annotated[
        str,
        matching(
            r"([a-z][a-z0-9_]{0,31})?", "prefix: lower-case letters, digits and underscores, at most 32"
        ),
    ] = ""
    """Begins the names of the databases and of their owners, e.g. `staging_`: two environments in one server need
    one each, or the later takes over what the earlier made."""


class RuntimeIdentity(Section):
    """Whom the runtime is to an object store."""

    access_key_id: str = Field(min_length=1)
    """Of an identity that may read and write objects in the buckets `landing` and `lake`."""
    secret_access_key: Secret | None = None
    """Its key, a secret; `up` asks for it."""


class ExternalObjectStore(Section):
    """An external S3 service. The buckets are adopted, or created there."""

    endpoint: BaseUrl
    """Base URL of its S3 API."""
    region: str = Field(default="us-east-1", min_length=1)
    """Its region."""
    allow_http: bool = False
    """Connect without encryption, where the endpoint begins with `http://`: whoever is on the way can read and change
    what is stored."""
    access_key_id: str = Field(min_length=1)
    """Of an identity that may create buckets and set their versioning, encryption and policy."""
    secret_access_key: Secret | None = None
    """Its key, a secret; `up` asks for it."""
    runtime: RuntimeIdentity | None = None
    """Whom the runtime is to it; by default the same identity."""


class SecurityProtocol(StrEnum):
    """How clients connect to a Kafka cluster."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class SaslMechanism(StrEnum):
    """How clients prove to a Kafka cluster who they are."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


class ExternalEventBus(Section):
    """An external Kafka cluster. The topics are adopted, or created there."""

    bootstrap_servers: Annotated[
        str,
        matching(
            r"[^\s,:]+:[0-9]{1,5}(,[^\s,:]+:[0-9]{1,5})*", "list of brokers: HOST:PORT, separated by commas"
        ),
    ]
    """`HOST:PORT` of some of its brokers, separated by commas."""
    security_protocol: SecurityProtocol = SecurityProtocol.SASL_SSL
    """How to connect. With `SSL` or `SASL_SSL` the brokers' certificates, and their names in them, are verified."""
    root_certificate: Certificates | None = None
    """The certificates (PEM text) of the authorities that theirs come from; by default those that are trusted where
    the platform runs."""
    sasl_mechanism: SaslMechanism = SaslMechanism.SCRAM_SHA_512
    """How to prove who it is, where the protocol is one with SASL."""
    username: str | None = Field(default=None, min_length=1)
    """Who it is; needed where the protocol is one with SASL."""
    password: Secret | None = None
    """Its password, a secret; `up` asks for it."""
    prefix: Annotated[
        str,
        matching(r"[A-Za-z0-9._-]{0,64}", "prefix: letters, digits, dots, hyphens, underscores, at most 64"),
    ] = ""
    """Begins the names of the topics and of the consumer group, e.g. `staging.`: two environments in one cluster
    need one each."""
    replication_factor: int | None = Field(default=None, ge=1, le=15)
    """Copies of each partition of a topic that is created; by default the cluster's own default."""

    @property
    def has_tls(self) -> bool:
        """Connections are encrypted."""
        return self.security_protocol in (SecurityProtocol.SSL, SecurityProtocol.SASL_SSL)

    @property
    def has_sasl(self) -> bool:
        """Clients prove who they are."""
        return self.security_protocol in (SecurityProtocol.SASL_PLAINTEXT, SecurityProtocol.SASL_SSL)
