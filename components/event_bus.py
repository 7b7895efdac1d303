"""The event bus: one Kafka broker that is its own controller (KRaft), with SASL on every listener."""

import base64
import uuid
from typing import NotRequired, TypedDict

import pulumi
from marketlake.settings import HealthKind

from components.component import Component, known_after
from components.external import external_service
from components.providers.secret import GeneratedSecret
from components.service import Command, File, Health, Importance, Port, Resources, Service, Stop, Tool, Volume
from components.target import TargetArgs
from components.targets import target_of

SERVICE = "event-bus"
CLIENT_USER = "marketlake"
BROKER_USER = "broker"
SECURITY_PROTOCOL = "SASL_PLAINTEXT"
SASL_MECHANISM = "PLAIN"

_LOGIN = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    f'username="{BROKER_USER}" password="{{secret:broker-password}}" '
    f'user_{BROKER_USER}="{{secret:broker-password}}"'
)

_PROPERTIES = f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{{self:controller}}
listeners=CLIENT://{{bind}}:{{port:client}},CONTROLLER://{{self:controller}}
advertised.listeners=CLIENT://{{address:client}}
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CLIENT:{SECURITY_PROTOCOL},CONTROLLER:{SECURITY_PROTOCOL}
sasl.enabled.mechanisms={SASL_MECHANISM}
sasl.mechanism.inter.broker.protocol={SASL_MECHANISM}
sasl.mechanism.controller.protocol={SASL_MECHANISM}
listener.name.client.plain.sasl.jaas.config={_LOGIN} user_{CLIENT_USER}="{{secret:client-password}}";
listener.name.controller.plain.sasl.jaas.config={_LOGIN};
log.dirs={{volume:data}}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
background.threads=2
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.io.buffer.size=262144
"""

_LOGGING = """\
status=WARN
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX} %-5p %c{1} %m%n
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
logger.started.name=kafka.server.KafkaRaftServer
logger.started.level=INFO
"""

_JAVA = (
    "{bin:java}",
    "-Xms64m",
    "-Xmx{memory:50}m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # the first compiler alone: half the start-up time, less memory, fast enough here
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Djava.io.tmpdir={temporary}",
    "-Djava.net.preferIPv4Stack=true",  # listen on 127.0.0.1 itself, not on its IPv6-mapped twin
    "-Dlog4j2.configurationFile={file:log4j2.properties}",
    "-cp",
    "{root:kafka}/libs/*",
)


def cluster_id(name: str) -> str:
    """A cluster's id in Kafka's notation (a UUID in base64, 22 characters), always the same for the same name."""
    return base64.urlsafe_b64encode(uuid.uuid5(uuid.NAMESPACE_OID, name).bytes).decode().rstrip("=")


def event_bus_service(
    *, memory_mib: int = 512, volume_mib: int = 1024, storage_class: str | None = None, cpu_millis: int = 100
) -> Service:
    """A Kafka broker. Inputs: ``cluster-id``. Secrets: ``broker-password``, ``client-password``."""
    return Service(
        name=SERVICE,
        program=Tool(name="kafka", needs=("java",)),
        argv=(*_JAVA, "kafka.Kafka", "{file:server.properties}"),
        ports={"client": Port(preferred=9092), "controller": Port(preferred=9093, private=True)},
        volumes={
            "data": Volume(
                size_mib=volume_mib,
                backup="none: tasks that were lost are dispatched again from the database",
                storage_class=storage_class,
            )
        },
        files={
            "server.properties": File(text=_PROPERTIES, secret=True),
            "log4j2.properties": File(text=_LOGGING),
        },
        setup=(
            Command(
                name="format the log folder",
                argv=(
                    *_JAVA,
                    "kafka.tools.StorageTool",
                    "format",
                    "--ignore-formatted",
                    "--cluster-id={input:cluster-id}",
                    "--config={file:server.properties}",
                ),
                creates="{volume:data}/meta.properties",
            ),
        ),
        health=Health(kind=HealthKind.TCP, port="client", timeout_s=90),
        resources=Resources(memory_mib=memory_mib, cpu_millis=cpu_millis),
        stop=Stop(grace_s=20),
        importance=Importance.DATA,
    )


class ExternalEventBusArgs(TypedDict):
    """An external Kafka cluster."""

    bootstrap_servers: pulumi.Input[str]
    """``host:port``, several joined by commas."""
    security_protocol: NotRequired[pulumi.Input[str]]
    """Optional: ``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``; the last when omitted."""
    root_certificate: NotRequired[pulumi.Input[str]]
    """Optional, with TLS: PEM text of the authorities that the brokers' certificates come from; those that the machine
    trusts when omitted."""
    sasl_mechanism: NotRequired[pulumi.Input[str]]
    """Needed with SASL: ``PLAIN``, ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``."""
    username: NotRequired[pulumi.Input[str]]
    """Needed with SASL: a user that may create, write and read topics."""
    password: NotRequired[pulumi.Input[str]]
    """A secret, needed with SASL."""


class EventBusArgs(TypedDict):
    """Arguments of the event bus."""

    target: TargetArgs
    """Where it runs."""
    memory_mib: NotRequired[int]
    """Optional: 512 when omitted; half becomes the Java heap."""
    volume_mib: NotRequired[int]
    """Optional: room that has to be free at first; 1024 when omitted."""
    storage_class: NotRequired[str]
    """Optional: of its volume, where the target offers several; the usual one when omitted."""
    cpu_millis: NotRequired[int]
    """Optional: thousandths of a core that are set aside for it, where the target can; 100 when omitted."""
    external: NotRequired[ExternalEventBusArgs]
    """Optional: a cluster to use instead of a broker of our own."""


class EventBus(Component):
    """A Kafka broker, or an external cluster."""

    bootstrap_servers: pulumi.Output[str]
    """``host:port``, several joined by commas."""
    security_protocol: pulumi.Output[str]
    """``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``."""
    root_certificate: pulumi.Output[str | None]
    """PEM text of the authorities that the brokers' certificates come from; None: those that the machine trusts."""
    sasl_mechanism: pulumi.Output[str | None]
    """``PLAIN``, ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``."""
    username: pulumi.Output[str | None]
    """Somebody who may create topics, write and read them."""
    password: pulumi.Output[str | None]
    """A secret. It, the mechanism and the name are None for an external cluster that asks for none."""
    service: pulumi.Output[dict[str, str]]
    """How `marketlake status` finds it."""

    def __init__(self, name: str, args: EventBusArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the broker."""
        super().__init__(name, opts)
        if "external" in args:
            self._take(args["external"])
        else:
            self._deploy(name, args)
        self.register_outputs(
            {
                "bootstrap_servers": self.bootstrap_servers,
                "security_protocol": self.security_protocol,
                "root_certificate": self.root_certificate,
                "sasl_mechanism": self.sasl_mechanism,
                "username": self.username,
                "password": self.password,
                "service": self.service,
            }
        )

    def _deploy(self, name: str, args: EventBusArgs) -> None:
        broker = GeneratedSecret(f"{name}-broker-password", opts=self._child())
        client = GeneratedSecret(f"{name}-client-password", opts=self._child())
        deployed = target_of(args["target"]).deploy(
            name,
            event_bus_service(
                memory_mib=args.get("memory_mib", 512),
                volume_mib=args.get("volume_mib", 1024),
                storage_class=args.get("storage_class"),
                cpu_millis=args.get("cpu_millis", 100),
            ),
            inputs={"cluster-id": cluster_id(f"{pulumi.get_project()}/{pulumi.get_stack()}/{name}")},
            secrets={"broker-password": broker.value, "client-password": client.value},
            opts=self._child(),
        )
        self.bootstrap_servers = deployed.address("client")
        self.security_protocol = pulumi.Output.from_input(SECURITY_PROTOCOL)
        self.root_certificate = pulumi.Output.from_input(None)
        self.sasl_mechanism = pulumi.Output.from_input(SASL_MECHANISM)
        self.username = pulumi.Output.from_input(CLIENT_USER)
        self.password = known_after(client.value, deployed.resource)
        self.service = deployed.info

    def _take(self, external: ExternalEventBusArgs) -> None:
        self.bootstrap_servers = pulumi.Output.from_input(external["bootstrap_servers"])
        self.security_protocol = pulumi.Output.from_input(external.get("security_protocol", "SASL_SSL"))
        self.root_certificate = pulumi.Output.from_input(external.get("root_certificate"))
        self.sasl_mechanism = pulumi.Output.from_input(external.get("sasl_mechanism"))
        self.username = pulumi.Output.from_input(external.get("username"))
        self.password = pulumi.Output.secret(external.get("password"))
        first = self.bootstrap_servers.apply(lambda servers: servers.split(",")[0])
        self.service = external_service(SERVICE, address=first, target=first)
