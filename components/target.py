"""What a target is: a component hands it a Service and gets back how to reach it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NotRequired, Protocol, TypedDict

import pulumi

from components.service import Service


class TargetKind(str, Enum):  # noqa: UP042 - Pulumi's component analysis knows no StrEnum
    """The kinds of places that services can run in."""

    HOST = "host"
    """Supervised processes on this machine."""


class TargetArgs(TypedDict):
    """Where the services of a component run."""

    kind: TargetKind
    folder: pulumi.Input[str]
    """The stack's folder on the host, as its supervisor says it."""
    supervisor: pulumi.Input[str]
    """The supervisor's socket."""
    ports: NotRequired[dict[str, dict[str, int]]]
    """Optional: port numbers that have to be taken, by port, by service."""
    keep_data: NotRequired[bool]
    """Optional: volumes outlive their services; when omitted they are removed with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A service that a target realises."""

    resource: pulumi.Resource
    """What whoever needs the service depends on."""
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
    """A place that services can run in."""

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
