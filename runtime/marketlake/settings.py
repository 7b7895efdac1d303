"""The one contract between what is provisioned and what runs in it.

Components build a :class:`Settings` and render it, with :meth:`Settings.to_env` for a deployed process or as
JSON (the *platform file*, mode 0600) for a person's command line. The runtime parses either with
:meth:`Settings.load`. Nothing else may pass between the two worlds.
"""

import json
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote

import certifi
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from marketlake.errors import MarketlakeError

ENV_PREFIX = "MARKETLAKE_"
PLATFORM_FILE_VARIABLE = "MARKETLAKE_PLATFORM_FILE"
"""Names the platform file of a command line explicitly; otherwise it is found by the environment's name."""


class SettingsError(MarketlakeError):
    """The settings cannot be read; the message says from where, why, and what to do."""

    code = "settings"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ObjectStore(_Part):
    """An S3 endpoint and the identity to use there."""

    endpoint: str
    """Base URL, path-style, e.g. ``http://127.0.0.1:9000``."""
    region: str = "us-east-1"
    access_key_id: str
    secret_access_key: SecretStr
    landing_bucket: str = "landing"
    """Archive files as the venue published them; versioned."""
    lake_bucket: str = "lake"
    """Delta tables: catalogue, bronze, silver, quarantine."""


class EventBus(_Part):
    """A Kafka cluster and the topics of the platform."""

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    root_certificate: str | None = None
    """PEM text of the authorities that the brokers' certificates come from, where the protocol is one with TLS; None:
    those that the machine trusts."""
    sasl_mechanism: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    tasks_topic: str = "collection.tasks"
    events_topic: str = "collection.events"
    dead_letters_topic: str = "collection.dead-letters"
    workers_group: str = "collection-workers"
    """Consumer group that shares the tasks among its members."""


class SslMode(StrEnum):
    """Whether a connection to PostgreSQL is encrypted, and what is verified; libpq's words."""

    DISABLE = "disable"
    """Never encrypted."""
    PREFER = "prefer"
    """Encrypted if the server can; nothing is verified."""
    REQUIRE = "require"
    """Encrypted; nothing is verified."""
    VERIFY_CA = "verify-ca"
    """The server's certificate comes from a trusted authority."""
    VERIFY_FULL = "verify-full"
    """It does, and was issued for the server's name."""

    @property
    def verifies(self) -> bool:
        """Whether the server's certificate is looked at."""
        return self in (SslMode.VERIFY_CA, SslMode.VERIFY_FULL)


class Database(_Part):
    """The PostgreSQL database of the ledger and of the collection's state."""

    host: str
    port: int
    name: str = "marketlake"
    user: str
    password: SecretStr
    sslmode: SslMode = SslMode.PREFER
    root_certificate: str | None = None
    """PEM text of the authorities that the server's certificate comes from; None: those that the machine trusts."""

    @property
    def dsn(self) -> str:
        """The libpq URI, with the password in it: never log it. The root certificate is not in it: see :meth:`tls`."""
        secret = quote(self.password.get_secret_value(), safe="")
        address = f"{quote(self.user, safe='')}:{secret}@{self.host}:{self.port}/{self.name}"
        return f"postgresql://{address}{'' if self.sslmode is SslMode.PREFER else f'?sslmode={self.sslmode}'}"

    @contextmanager
    def tls(self) -> Iterator[dict[str, Any]]:
        """Return libpq's parameters of TLS, for a connection that is made within this context.

        libpq takes root certificates from a file alone, which lasts as long as the context.
        """
        if not self.sslmode.verifies:
            yield {"sslmode": self.sslmode}
        elif self.root_certificate is None:
            # Not libpq's own "system": the OpenSSL in psycopg's wheels looks where no system keeps certificates.
            trusted = ssl.get_default_verify_paths().cafile or certifi.where()
            yield {"sslmode": self.sslmode, "sslrootcert": trusted}
        else:
            with tempfile.NamedTemporaryFile("w", prefix="marketlake-", suffix=".crt") as file:
                file.write(self.root_certificate)
                file.flush()
                yield {"sslmode": self.sslmode, "sslrootcert": file.name}


class WorkflowEngine(_Part):
    """A Prefect server."""

    api_url: str
    """Ends in ``/api``."""
    ui_url: str
    auth_string: SecretStr | None = None
    """``user:password`` for HTTP basic authentication."""
    work_pool: str = "collection"
    collect_deployment: str = "collect/collect"
    """``flow/deployment``: requests a collection, for schedules and for people at the engine's page."""

    def page(self, flow_run: str) -> str:
        """Return the URL of a flow run's page."""
        return f"{self.ui_url.rstrip('/')}/runs/flow-run/{flow_run}"


class Telemetry(_Part):
    """Where telemetry is sent to, and where it is stored."""

    otlp_endpoint: str | None = None
    """OTLP over HTTP, without the ``/v1/…`` path. None: telemetry stays in the process."""
    metrics_url: str | None = None
    logs_url: str | None = None
    traces_url: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    """HTTP basic authentication of the metrics and logs stores."""


class VenueEndpoint(_Part):
    """Where a venue's archive is read: the public one, or the stack's stand-in."""

    endpoint: str
    """Base URL of the S3 service, path-style."""
    bucket: str


class Collection(_Part):
    """How many files and batches a worker has in hand at once, and how often it tries."""

    concurrency: int = Field(default=32, ge=1, le=256)
    """Files that one worker process copies at once."""
    batches: int = Field(default=8, ge=1, le=1000)
    """Batches that one worker process carries on at once; further ones wait."""
    group_files: int = Field(default=256, ge=1, le=256)
    """Files of one task, at most."""
    attempts: int = Field(default=8, ge=1, le=100)
    """Tries per file before an error that may pass is recorded as a failure; waits between them double."""
    requests_per_second: float = Field(default=300.0, gt=0)
    """Files that one worker process begins to read per second and venue host, at most."""
    max_inflated_mib: int = Field(default=65_536, ge=1)
    """MiB that the CSV of one archive file may have; a larger one is refused before it is inflated."""
    max_inflation_ratio: int = Field(default=200, ge=2)
    """How many times its compressed size a file of more than 16 MiB may inflate to."""


class HealthKind(StrEnum):
    """How the health of a service is checked."""

    HTTP = "http"
    """A GET of `target` answers with a status below 400."""
    TCP = "tcp"
    """A connection to `target` (host:port) is accepted."""
    PROCESS = "process"
    """It runs; it serves nothing that could be asked."""


class ServiceInfo(_Part):
    """One deployed service, as `marketlake status` shows it."""

    name: str
    version: str
    address: str | None = None
    """URL or host:port of its main port; None where it serves nothing."""
    console: str | None = None
    """URL of its web page, if it has one for people."""
    health: HealthKind
    target: str | None = None
    """What the health check asks; None for HealthKind.PROCESS."""
    control: str | None = None
    """Where its processes are looked up: ``supervisor:<socket path>#<program or group>``, or
    ``kubernetes:<namespace>/<deployment|statefulset>/<name>`` in the settings' `cluster`; None for a server that
    is external."""


class Cluster(_Part):
    """The Kubernetes cluster that the services run in."""

    kubeconfig: str | None = None
    """Path of the kubeconfig file; None: the usual places."""
    context: str | None = None
    """None: the file's current one."""
    namespace: str


class Settings(BaseSettings):
    """All settings of the runtime."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # a value may be a secret
    )

    environment: str
    """Name of the stack, e.g. ``local``."""
    object_store: ObjectStore
    event_bus: EventBus
    database: Database
    workflow_engine: WorkflowEngine
    telemetry: Telemetry = Telemetry()
    collection: Collection = Collection()
    venues: Mapping[str, VenueEndpoint] = Field(default_factory=dict)
    """By venue name. A venue without an entry is read at its public address."""
    services: tuple[ServiceInfo, ...] = ()
    """Only in the platform file: what `marketlake status` looks at."""
    cluster: Cluster | None = None
    """Only in the platform file: where it finds services that run in a cluster."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment variables win over the platform file: one value can be changed for one command."""
        return env_settings, init_settings

    def to_json(self) -> str:
        """The platform file's text. Holds secrets in clear: write it with mode 0600."""
        return json.dumps(_reveal(self.model_dump()), indent=1, sort_keys=True)

    def to_env(self) -> dict[str, str]:
        """Environment variables from which :meth:`load` rebuilds these settings, without `services` and `cluster`."""
        tree = _reveal(self.model_dump(exclude={"services", "cluster"}, exclude_none=True))
        return dict(_flatten(tree))

    @classmethod
    def load(cls, environment: str | None = None) -> Self:
        """Return the settings of the platform file of an environment, or of environment variables alone.

        Args:
            environment: name of the stack. None: what the process was deployed with
                (``MARKETLAKE_ENVIRONMENT``), else ``local``.

        Raises:
            SettingsError: no such environment, or unreadable or invalid settings.
        """
        deployed = os.environ.get(f"{ENV_PREFIX}ENVIRONMENT")
        if deployed and environment in (None, deployed) and f"{ENV_PREFIX}DATABASE__HOST" in os.environ:
            return cls._validated({}, "environment variables")
        path = platform_file(environment or "local")
        try:
            values = json.loads(path.read_text())
        except FileNotFoundError:
            raise SettingsError(
                f"no platform file at {path}: the environment {environment or 'local'!r} is not up on this "
                f"machine. Run `make up ENV={environment or 'local'}`, or name another with --env."
            ) from None
        except (OSError, ValueError) as error:
            reason = f"{error}. `pulumi up` rewrites it."
            raise SettingsError(f"cannot read the platform file {path}: {reason}") from error
        return cls._validated(values, str(path))

    @classmethod
    def _validated(cls, values: Mapping[str, Any], source: str) -> Self:
        try:
            return cls(**values)
        except ValueError as error:
            raise SettingsError(f"invalid settings in {source}: {error}") from error


def platform_home() -> Path:
    """Return the folder of all stacks' data on this machine.

    ``MARKETLAKE_HOME`` if set; else ``/var/lib/marketlake`` for root, whose home an unprivileged PostgreSQL
    could not enter; else ``$XDG_DATA_HOME/marketlake`` (``~/.local/share`` by default).
    """
    if named := os.environ.get("MARKETLAKE_HOME"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/marketlake")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "marketlake"


def platform_file(environment: str) -> Path:
    """Return the path of the settings of an environment for the command line."""
    if named := os.environ.get(PLATFORM_FILE_VARIABLE):
        return Path(named)
    return platform_home() / environment / "platform.json"


def _reveal(value: Any) -> Any:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case dict():
            return {key: _reveal(item) for key, item in value.items()}
        case list() | tuple():
            return [_reveal(item) for item in value]
        case _:
            return value


def _flatten(tree: Mapping[str, Any], prefix: str = ENV_PREFIX) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}".upper()
        if isinstance(value, dict) and key != "venues":
            pairs += _flatten(value, f"{name}__")
        else:
            pairs.append((name, json.dumps(value) if isinstance(value, dict | list) else str(value)))
    return pairs
