"""Settings of the targets: this machine, or a namespace of a Kubernetes cluster."""

import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic.alias_generators import to_camel

from components.target import VendorImageArgs
from stacks.settings.section import ObjectName, PortNumber, Section, matching

_IPV4 = 4
ADMIN_KUBECONFIG = Path("/etc/kubernetes/admin.conf")
"""Where a control plane's own node keeps the way in."""


class KubeconfigMissingError(Exception):
    """No kubeconfig file can be read; the message lists every path that was tried."""


class Target(StrEnum):
    """Where the services run."""

    HOST = "host"
    """Supervised processes on this machine, on the loopback interface only."""
    KUBERNETES = "kubernetes"
    """Workloads in a namespace of a Kubernetes cluster."""


class Ports(Section):
    """Ports on 127.0.0.1, for the target `host`. One that is named here is taken, or `pulumi up` fails, saying
    who holds it; one that is not named is the usual number of that server, or the next free one.
    """

    database: PortNumber | None = None
    """PostgreSQL; usually 5432."""
    object_store: PortNumber | None = None
    """The S3 API; usually 9000."""
    object_store_console: PortNumber | None = None
    """The object store's web page; usually 9001."""
    event_bus: PortNumber | None = None
    """Kafka for clients; usually 9092."""
    event_bus_controller: PortNumber | None = None
    """Kafka's controller, for itself; usually 9093."""
    workflow_engine: PortNumber | None = None
    """Prefect's API and web page; usually 4200."""
    metrics_store: PortNumber | None = None
    """VictoriaMetrics and its web page; usually 8428."""
    log_store: PortNumber | None = None
    """VictoriaLogs and its web page; usually 9428."""
    trace_store: PortNumber | None = None
    """Jaeger's queries and web page; usually 16686."""
    trace_store_grpc: PortNumber | None = None
    """Jaeger's queries by gRPC; usually 16685."""
    trace_store_otlp: PortNumber | None = None
    """Where Jaeger takes spans from the collector; usually 4328."""
    telemetry_collector: PortNumber | None = None
    """OTLP over HTTP, for everything that is measured; usually 4318."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        owners: dict[int, str] = {}
        for name in type(self).model_fields:
            port = getattr(self, name)
            if port is None:
                continue
            if port in owners:
                raise ValueError(
                    f"{to_camel(owners[port])} and {to_camel(name)} are both {port}: give each its own"
                )
            owners[port] = name
        return self

    def by_service(self) -> dict[str, dict[str, int]]:
        """The numbers that are named here, by the name that the port has in the Service, by service."""
        named = {
            service: {
                port: number for port, key in keys.items() if (number := getattr(self, key)) is not None
            }
            for service, keys in _PORTS_BY_SERVICE.items()
        }
        return {service: numbers for service, numbers in named.items() if numbers}


_PORTS_BY_SERVICE: Mapping[str, Mapping[str, str]] = {
    "database": {"sql": "database"},
    "object-store": {"api": "object_store", "console": "object_store_console"},
    "event-bus": {"client": "event_bus", "controller": "event_bus_controller"},
    "workflow-engine": {"api": "workflow_engine"},
    "metrics-store": {"http": "metrics_store"},
    "log-store": {"http": "log_store"},
    "trace-store": {"http": "trace_store", "grpc": "trace_store_grpc", "otlp": "trace_store_otlp"},
    "telemetry-collector": {"otlp": "telemetry_collector"},
}


def _network(text: str) -> str:
    network = ip_network(text)
    if network.prefixlen == 0:
        raise ValueError("is everybody: name the networks that are meant")
    return str(network)


def _network_v4(text: str) -> str:
    network = _network(text)
    if ip_network(network).version != _IPV4:
        raise ValueError("is no IPv4 network; servers with names are reached at IPv4 addresses only")
    return network


class KubernetesSettings(Section):
    """The cluster, for the target `kubernetes`."""

    kubeconfig: Path | None = None
    """Path of the kubeconfig file that opens the cluster. By default the first that is there of those that the
    environment variable KUBECONFIG names, `~/.kube/config` and `/etc/kubernetes/admin.conf`."""
    context: str | None = None
    """Context of that file; by default its current one."""
    namespace: (
        Annotated[
            str,
            matching(
                r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?",
                "name of a namespace: lower-case letters, digits and hyphens, at most 50",
            ),
        ]
        | None
    ) = None
    """Namespace that becomes the stack's alone; by default `marketlake-<environment>`."""
    storage_class: ObjectName | None = None
    """Storage class of the volumes of every section that names none; by default the cluster's default one."""

    rollout_allowance_seconds: int = Field(default=120, ge=1, le=3600)
    """What scheduling a pod and fetching its image may take, beyond the service's own time to start, before `up` gives
    a rollout up."""

    operators: list[Annotated[str, AfterValidator(_network)]] = Field(default_factory=list)
    """Networks that Pulumi and the command line come from, e.g. `10.1.0.0/16`: they may reach every service. A
    machine that is itself the node of the cluster needs none."""

    closed_networks: list[Annotated[str, AfterValidator(_network_v4)]] = Field(default_factory=list)
    """Public IPv4 networks of the cluster's pods, services and nodes, e.g. `203.0.113.0/24`: a service that calls
    external servers does not reach them. Private, shared and link-local networks (RFC 6890) are closed anyway."""
    external_networks: list[Annotated[str, AfterValidator(_network)]] = Field(default_factory=list)
    """Networks that are closed otherwise and that external servers or a venue with a name lie in, e.g.
    `10.20.5.0/28`: they are reached at those servers' ports only. A server that is given by its IP address needs
    none."""

    def namespace_of(self, environment: str) -> str:
        """The namespace of an environment's stack."""
        return self.namespace or f"marketlake-{environment}"

    def kubeconfig_file(self, variables: Mapping[str, str] | None = None) -> Path:
        """The kubeconfig file.

        Args:
            variables: the environment's; None: this process's.

        Raises:
            KubeconfigMissingError: there is none.
        """
        tried = list(self._places(os.environ if variables is None else variables))
        for path in tried:
            if os.access(path, os.R_OK) and path.is_file():
                return path
        raise KubeconfigMissingError(
            f"No kubeconfig file can be read at {', '.join(map(str, tried))}. Name one with `pulumi config set --path "
            "marketlake:kubernetes.kubeconfig PATH` or in the environment variable KUBECONFIG; `make cluster` makes "
            f"a cluster of this machine, and {ADMIN_KUBECONFIG}, which root can read."
        )

    def _places(self, variables: Mapping[str, str]) -> Iterator[Path]:
        if self.kubeconfig is not None:
            yield self.kubeconfig.expanduser()
            return
        named = [Path(text) for text in variables.get("KUBECONFIG", "").split(os.pathsep) if text]
        yield from named or [Path.home() / ".kube" / "config", ADMIN_KUBECONFIG]


class Program(StrEnum):
    """A program that has an image."""

    MARKETLAKE = "marketlake"
    """The runtime, Prefect with it."""
    MINIO = "minio"
    KAFKA = "kafka"
    POSTGRESQL = "postgresql"
    VICTORIA_METRICS = "victoria-metrics"
    VICTORIA_LOGS = "victoria-logs"
    JAEGER = "jaeger"
    OTEL_COLLECTOR = "otel-collector"


_AbsolutePath = Annotated[str, matching(r"/\S*", "absolute path")]


class VendorImageSettings(Section):
    """An image of a vendor's."""

    reference: Annotated[
        str,
        matching(
            r"\S+@sha256:[0-9a-f]{64}",
            "image pinned by its digest: NAME@sha256:…, as `crane digest NAME:TAG` or the registry's page tells it",
        ),
    ]
    """`NAME@sha256:…`: a tag may come to mean another image, a digest cannot."""
    executables: dict[str, _AbsolutePath] = Field(default_factory=dict)
    """Absolute paths in the image by executable's name; one that is left out is found by the image's PATH."""
    roots: dict[str, _AbsolutePath] = Field(default_factory=dict)
    """Folders of tools in the image by tool, e.g. `kafka: /opt/kafka`."""

    def args(self) -> VendorImageArgs:
        """Return the arguments of a component."""
        return {"reference": self.reference, "executables": self.executables, "roots": self.roots}


class ImagesSettings(Section):
    """Where images come from, for the target `kubernetes`. By default they are our own, which `make images`
    builds and puts on this machine's node.
    """

    registry: (
        Annotated[
            str,
            matching(
                r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*",
                "registry: HOST[:PORT][/PREFIX], e.g. registry.example.com:5000/marketlake",
            ),
        ]
        | None
    ) = None
    """`HOST[:PORT][/PREFIX]` that our images are pushed to, by `make images` with the same settings."""
    vendor: dict[Program, VendorImageSettings] = Field(default_factory=dict)
    """Images to take instead of ours, by program."""

    def vendor_args(self) -> dict[str, VendorImageArgs]:
        """Return the arguments of components for the vendors' images."""
        return {program.value: image.args() for program, image in self.vendor.items()}
