"""The protocol of targets: a component deploys a Service and gets back its addresses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NotRequired, Protocol, TypedDict

import pulumi

from components.service import ExternalServer, Service


class TargetKind(str, Enum):  # noqa: UP042 - Pulumi's component analysis knows no StrEnum
    """The kinds of targets."""

    HOST = "host"
    """Supervised processes on this machine."""
    KUBERNETES = "kubernetes"
    """Workloads in one namespace of a cluster."""


class HostTargetArgs(TypedDict):
    """This machine."""

    folder: pulumi.Input[str]
    """The stack's folder on the host, as its supervisor says it."""
    supervisor: pulumi.Input[str]
    """The supervisor's socket."""
    ports: NotRequired[dict[str, dict[str, int]]]
    """Optional: port numbers that have to be taken, by port, by service."""
    keep_data: NotRequired[bool]
    """Optional: volumes outlive their services; when omitted they are removed with them."""


class VendorImageArgs(TypedDict):
    """A vendor's image of a program."""

    reference: str
    """With its digest: ``name@sha256:…``."""
    executables: NotRequired[dict[str, str]]
    """Optional: absolute paths in the image, by name; one that is omitted is found by the image's PATH."""
    roots: NotRequired[dict[str, str]]
    """Optional: folders of tools in the image, by tool."""


class KubernetesTargetArgs(TypedDict):
    """A namespace of a cluster. The Kubernetes provider is inherited from the component's options."""

    namespace: pulumi.Input[str]
    """Known once it exists."""
    stack: str
    """Name of the environment: the label ``app.kubernetes.io/instance`` of every object."""
    storage_class: NotRequired[str]
    """Optional: of the volumes that name none; the cluster's default when omitted."""
    image_registry: NotRequired[str]
    """Optional: ``host[:port]/prefix`` that our images were pushed to; when omitted they lie on the nodes."""
    vendor_images: NotRequired[dict[str, VendorImageArgs]]
    """Optional: images to use instead of ours, by program."""
    operators: NotRequired[list[str]]
    """Optional: networks, e.g. ``10.1.0.0/16``, that may reach every service beside the pods that call it."""
    rollout_allowance_seconds: NotRequired[int]
    """Optional: what scheduling and fetching an image may take, beyond the service's own time to start; 120 when
    omitted."""
    closed_networks: NotRequired[list[str]]
    """Optional: networks of the cluster that no external server is in, beside all that are not public."""
    external_networks: NotRequired[list[str]]
    """Optional: networks that are not public, or closed, and that external servers with names are in."""


class ExternalServerArgs(TypedDict):
    """A server outside the platform that a service connects to."""

    port: int
    """Where it listens."""
    host: NotRequired[str]
    """Optional: its name or IP address; when omitted, any server with that port."""


def external_servers(args: Sequence[ExternalServerArgs]) -> tuple[ExternalServer, ...]:
    """The same in the words of a Service."""
    return tuple(ExternalServer(host=server.get("host"), port=server["port"]) for server in args)


class TargetArgs(TypedDict):
    """Where the services of a component run."""

    kind: TargetKind
    """Its own arguments stand under its name."""
    host: NotRequired[HostTargetArgs]
    """Needed by the kind ``host``."""
    kubernetes: NotRequired[KubernetesTargetArgs]
    """Needed by the kind ``kubernetes``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A service that a target realises."""

    resource: pulumi.Resource
    """The resource that dependants of the service depend on."""
    addresses: pulumi.Output[Mapping[str, str]]
    """``host:port`` of each port."""
    info: pulumi.Output[dict[str, Any]]
    """A :class:`marketlake.settings.ServiceInfo`."""

    def address(self, port: str) -> pulumi.Output[str]:
        """``host:port`` of one port."""
        return self.addresses.apply(lambda addresses: addresses[port])

    def url(self, port: str) -> pulumi.Output[str]:
        """Base URL of one port."""
        return self.address(port).apply(lambda address: f"http://{address}")


class Target(Protocol):
    """Where services run."""

    def deploy(
        self,
        name: str,
        service: Service,
        *,
        inputs: Mapping[str, pulumi.Input[str]],
        secrets: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions,
    ) -> Deployed:
        """Realise `service` with resources named ``f"{name}-…"``.

        Args:
            name: the component's name.
            service: what it needs.
            inputs: values for its ``{input:…}``.
            secrets: values for its ``{secret:…}``; they become Pulumi secrets if they are none yet.
            opts: the component as parent, and what has to be there before the service starts.
        """
        ...

    def job(
        self,
        service: Service,
        *,
        inputs: Mapping[str, pulumi.Input[str]],
    ) -> pulumi.Output[Mapping[str, Any]] | None:
        """The manifest of the Kubernetes Job that one run of `service` becomes; None: a run is a child process.

        It names what :meth:`deploy` brings along for a Service that `runs` this one, and holds no secret itself.
        """
        ...
