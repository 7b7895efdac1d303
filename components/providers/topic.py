"""A topic of a Kafka cluster: partitions, replicas, configuration."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, ClassVar, NotRequired, Self, TypedDict, TypeVar

import pulumi
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from pulumi.dynamic import Resource
from pydantic import Field

from components.providers.base import Inputs, Provider, Record, ResourceError, warn
from components.providers.connections import EventBusConnection, EventBusConnectionArgs
from components.providers.waiting import REFRESH_TIMEOUT_S, START_TIMEOUT_S, NotReady, wait_for

Result = TypeVar("Result")

_REQUEST_TIMEOUT_S = 10.0
_STARTING = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001 - librdkafka's own codes begin with an underscore
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.INVALID_REPLICATION_FACTOR,  # fewer brokers than replicas have registered so far
    }
)
_OF_THE_CLUSTER = -1
"""Number of replicas by which Kafka's protocol means the brokers' default (KIP-464)."""
_ABSENT = KafkaError.UNKNOWN_TOPIC_OR_PART


class TopicArgs(TypedDict):
    """Arguments of a topic."""

    connection: pulumi.Input[EventBusConnectionArgs]
    topic: pulumi.Input[str]
    """The topic's name."""
    partitions: NotRequired[pulumi.Input[int]]
    """Optional: 1 when omitted. They can grow; fewer means a new topic without the events of the old."""
    replication_factor: NotRequired[pulumi.Input[int | None]]
    """Optional: when omitted, whatever it has or, for a new one, the cluster's own default. Another one means a new
    topic."""
    config: NotRequired[pulumi.Input[Mapping[str, pulumi.Input[str]]]]
    """Optional: topic configuration such as ``retention.ms``; the rest stays at the broker's default."""


class TopicRecord(Record):
    """What a topic is found by, and whether the number of its replicas was declared at all."""

    connection: EventBusConnection
    topic: str
    replication_factor: int | None = None


class TopicInputs(TopicRecord, Inputs):
    """The resolved :class:`TopicArgs`."""

    topic: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")
    partitions: int = Field(default=1, ge=1)
    replication_factor: int | None = Field(default=None, ge=1)
    config: dict[str, str] = Field(default_factory=dict)


class TopicProvider(Provider[TopicInputs, TopicRecord]):
    """Topics, through Kafka's admin API."""

    VERSION: ClassVar[str] = "1"
    model = TopicInputs
    record = TopicRecord
    identity = frozenset({"topic"})

    def resource_id(self, declared: TopicInputs) -> str:
        """The topic's name."""
        return declared.topic

    def replaced_by(self, recorded: Mapping[str, Any], declared: Mapping[str, Any]) -> list[str]:
        """Return the inputs that need a new topic: fewer partitions, or another number of replicas."""
        replicas = declared.get("replication_factor")
        others = ["replication_factor"] if replicas not in (None, recorded.get("replication_factor")) else []
        before, after = recorded.get("partitions"), declared.get("partitions")
        if not (isinstance(before, int) and isinstance(after, int) and after < before):
            return others
        warn(
            f"{declared.get('topic')!r}: Kafka cannot take partitions away ({before} → {after}), so the "
            f"topic is replaced and the events in it are lost. Declare {before} partitions to keep it."
        )
        return [*others, "partitions"]

    def apply(self, declared: TopicInputs) -> Mapping[str, Any]:
        """Create or adopt the topic, grow it, and set its configuration to exactly what is declared."""
        with _Cluster(declared.connection, START_TIMEOUT_S) as cluster:
            live = cluster.ask(lambda: cluster.live(declared.topic))
            if live is None:
                cluster.ask(lambda: cluster.create(declared))
                return {}
            if live["partitions"] > declared.partitions:
                raise ResourceError(
                    f"The topic {declared.topic!r} exists with {live['partitions']} partitions, "
                    f"{declared.partitions} are declared, and Kafka cannot take partitions away. Declare at "
                    "least as many, or delete the topic, with the events in it, first."
                )
            if live["partitions"] < declared.partitions:
                cluster.ask(lambda: cluster.grow(declared.topic, declared.partitions))
            if live["config"] != declared.config:
                cluster.ask(lambda: cluster.configure(declared.topic, live["config"], declared.config))
        return {}

    def observe(self, recorded: TopicRecord) -> Mapping[str, Any] | None:
        """Partitions, replicas, and the configuration that was set on the topic itself."""
        with _Cluster(recorded.connection, REFRESH_TIMEOUT_S) as cluster:
            live = cluster.ask(lambda: cluster.live(recorded.topic))
        if live is not None and recorded.replication_factor is None:
            live["replication_factor"] = None
        return live

    def remove(self, recorded: TopicRecord) -> None:
        """Delete the topic and wait until it is gone."""
        with _Cluster(recorded.connection, START_TIMEOUT_S) as cluster:
            cluster.ask(lambda: cluster.delete(recorded.topic))

            def gone() -> None:
                if cluster.live(recorded.topic) is not None:
                    raise NotReady("the topic is still being deleted")

            cluster.ask(gone)


class Topic(Resource, module="marketlake", name="Topic"):
    """A topic."""

    topic: pulumi.Output[str]

    def __init__(self, name: str, args: TopicArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the topic `args["topic"]` under the resource name `name`."""
        super().__init__(TopicProvider(), name, {**args, "version": TopicProvider.VERSION}, opts)


class _Cluster:
    """A session with a cluster's admin API that waits while brokers start."""

    def __init__(self, connection: EventBusConnection, timeout_s: float) -> None:
        self._servers = connection.bootstrap_servers
        self._timeout_s = timeout_s
        self._refusal: str | None = None
        self._distrust: str | None = None
        settings: dict[str, Any] = {
            "bootstrap.servers": connection.bootstrap_servers,
            "security.protocol": connection.security_protocol,
            **_tls(connection),
            "socket.connection.setup.timeout.ms": 5000,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,  # librdkafka would write every failed attempt to connect to stderr
            "error_cb": self._note,
        }
        if connection.sasl_mechanism:
            settings |= {
                "sasl.mechanism": connection.sasl_mechanism,
                "sasl.username": connection.username or "",
                "sasl.password": connection.password or "",
            }
        try:
            self._admin = AdminClient(settings)
        except KafkaException as error:
            raise ResourceError(f"Kafka's client refuses the connection's settings: {_text(error)}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self._admin  # closes the connections; the client has no close of its own

    def _note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001
            self._refusal = str(error.str())
        elif error.code() == KafkaError._SSL and "verify failed" in error.str():  # noqa: SLF001
            self._distrust = str(error.str())

    def ask(self, action: Callable[[], Result]) -> Result:
        """Run `action`; wait while the brokers start, and put what Kafka refuses into words."""

        def attempt() -> Result:
            self._admin.poll(0)
            try:
                return action()
            except KafkaException as error:
                self._admin.poll(0)
                if self._distrust:
                    raise ResourceError(
                        f"The event bus at {self._servers} is not trusted: {self._distrust}. Give the certificate of "
                        "its authority as `eventBus.external.rootCertificate`, and the brokers by the names in their "
                        "own certificates."
                    ) from None
                if self._refusal:
                    raise ResourceError(
                        f"The event bus at {self._servers} refuses the administrator's identity: "
                        f"{self._refusal}"
                    ) from None
                if error.args[0].code() in _STARTING:
                    raise NotReady(_text(error)) from None
                raise ResourceError(f"The event bus at {self._servers} refuses: {_text(error)}") from None

        return wait_for(attempt, server=f"The event bus at {self._servers}", timeout_s=self._timeout_s)

    def live(self, topic: str) -> dict[str, Any] | None:
        metadata = self._admin.list_topics(timeout=min(self._timeout_s, _REQUEST_TIMEOUT_S))
        found = metadata.topics.get(topic)
        if found is None or not found.partitions:
            return None
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            entries = _only(self._admin.describe_configs([resource], request_timeout=_REQUEST_TIMEOUT_S))
        except KafkaException as error:
            if error.args[0].code() == _ABSENT:  # it was made or deleted just now, and not every list knows
                raise NotReady(_text(error)) from None
            raise
        own = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
        return {
            "partitions": len(found.partitions),
            "replication_factor": len(found.partitions[min(found.partitions)].replicas),
            "config": {name: entry.value for name, entry in entries.items() if entry.source == own},
        }

    def create(self, declared: TopicInputs) -> None:
        new = NewTopic(
            declared.topic,
            num_partitions=declared.partitions,
            replication_factor=declared.replication_factor or _OF_THE_CLUSTER,
            config=declared.config,
        )
        try:
            _only(self._admin.create_topics([new], request_timeout=_REQUEST_TIMEOUT_S))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def grow(self, topic: str, partitions: int) -> None:
        new = NewPartitions(topic, partitions)
        _only(self._admin.create_partitions([new], request_timeout=_REQUEST_TIMEOUT_S))

    def configure(self, topic: str, live: Mapping[str, str], declared: Mapping[str, str]) -> None:
        entries = [
            ConfigEntry(name, declared[name], incremental_operation=AlterConfigOpType.SET)
            for name in sorted(declared)
            if live.get(name) != declared[name]
        ] + [
            ConfigEntry(name, None, incremental_operation=AlterConfigOpType.DELETE)
            for name in sorted(set(live) - set(declared))
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        _only(self._admin.incremental_alter_configs([resource], request_timeout=_REQUEST_TIMEOUT_S))

    def delete(self, topic: str) -> None:
        try:
            _only(self._admin.delete_topics([topic], request_timeout=_REQUEST_TIMEOUT_S))
        except KafkaException as error:
            if error.args[0].code() != _ABSENT:
                raise


def _tls(connection: EventBusConnection) -> dict[str, Any]:
    """What is verified of a broker, where the protocol is one with TLS: its certificate, and its name in it."""
    if not connection.security_protocol.endswith("SSL"):
        return {}
    verified = {"enable.ssl.certificate.verification": True, "ssl.endpoint.identification.algorithm": "https"}
    if connection.root_certificate is None:
        return verified
    return {**verified, "ssl.ca.pem": connection.root_certificate}


def _only(futures: Mapping[Any, "Future[Any]"]) -> Any:
    """The result of the one future in an admin call's answer."""
    (future,) = futures.values()
    return future.result()


def _text(error: KafkaException) -> str:
    return str(error.args[0].str() or error.args[0].name())
