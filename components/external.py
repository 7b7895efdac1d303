"""External servers: a component uses one in place of its own."""

from typing import Any

import pulumi
from marketlake.settings import HealthKind, ServiceInfo

VERSION = "external"
"""What stands for the version of a server that is not ours: nobody asks it."""


def external_service(
    name: str, *, address: pulumi.Input[str], target: pulumi.Input[str]
) -> pulumi.Output[dict[str, Any]]:
    """Return how `marketlake status` shows an external server.

    Args:
        name: of the service that it stands for.
        address: URL or ``host:port``.
        target: ``host:port`` of what has to accept connections.
    """

    def describe(values: dict[str, str]) -> dict[str, Any]:
        return ServiceInfo(
            name=name,
            version=VERSION,
            address=values["address"],
            health=HealthKind.TCP,
            target=values["target"],
        ).model_dump(mode="json", exclude_none=True)

    return pulumi.Output.all(address=address, target=target).apply(describe)
