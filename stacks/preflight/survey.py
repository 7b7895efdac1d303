"""What is seen of a Kubernetes cluster, read from the objects of its API."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from marketlake.infrastructure.kubernetes import quantity

from components.kubernetes.labels import INSTANCE

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_LISTED_IMAGES = 50
"""The kubelet's usual ``nodeStatusMaxImages``: of more, it names the largest only."""
_MIB = 1024**2
_IPV4 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """CPU and memory of all nodes together."""

    cpu_millis: int
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was seen of a cluster. None: whoever looks may not see it."""

    version: tuple[int, int]
    """Of its API server."""
    storage_classes: Mapping[str, bool] | None
    """By name: whether it is the default one."""
    owner: str | None
    """The stack that the namespace belongs to; an empty text for an unknown namespace, None for none."""
    allocatable: Room | None
    """What pods may be given."""
    requested: Room | None
    """What pods of other namespaces have been given."""
    has_metrics: bool | None
    """It measures what pods use."""
    api_address: str | None = None
    """Virtual address of the API server, as pods see it, with its port: ``10.96.0.1:443``."""
    networks: frozenset[str] = frozenset()
    """IPv4 networks and addresses of nodes, of their pods, and of the API server, as far as they can be seen."""


def storage_class(item: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the name of a storage class, and whether it is the default one."""
    metadata = item["metadata"]
    return metadata["name"], (metadata.get("annotations") or {}).get(_DEFAULT_CLASS) == "true"


def owner_of(namespaces: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """Return the stack that a namespace belongs to; an empty text for an unknown namespace, None for none."""
    for item in namespaces:
        if item["metadata"]["name"] == name:
            return str((item["metadata"].get("labels") or {}).get(INSTANCE, ""))
    return None


def api_address(services: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the virtual address and port of the API server."""
    for item in services:
        if item["metadata"]["name"] == "kubernetes":
            return f"{item['spec']['clusterIP']}:{item['spec']['ports'][0]['port']}"
    return None


def networks_of(nodes: Sequence[Mapping[str, Any]], address: str | None) -> Iterator[str]:
    """Yield the IPv4 networks and addresses of nodes, of their pods, and of the API server at `address`."""
    found = [urlsplit(f"//{address}").hostname or ""] if address else []
    for node in nodes:
        found += (node.get("spec") or {}).get("podCIDRs") or []
        found += [
            one["address"]
            for one in (node.get("status") or {}).get("addresses") or []
            if one["type"] == "InternalIP"
        ]
    yield from (str(network) for network in map(ip_network, found) if network.version == _IPV4)


def allocatable(nodes: Sequence[Mapping[str, Any]]) -> Room:
    """Return what the nodes that take pods can give to pods."""
    usable = [node for node in nodes if not node["spec"].get("unschedulable")]
    return _sum(node["status"].get("allocatable", {}) for node in usable)


def images_on_every_node(nodes: Sequence[Mapping[str, Any]]) -> frozenset[str] | None:
    """Return the names of the images that every node has; None where nodes do not list all of theirs."""
    lists = [node["status"].get("images", []) for node in nodes if not node["spec"].get("unschedulable")]
    if not lists or any(len(images) >= _LISTED_IMAGES for images in lists):
        return None
    return frozenset.intersection(
        *(frozenset(name for image in images for name in image.get("names") or ()) for images in lists)
    )


def requested(pods: Sequence[Mapping[str, Any]], *, outside: str) -> Room:
    """Return what the running pods outside of a namespace request."""
    return _sum(
        container.get("resources", {}).get("requests", {})
        for pod in pods
        if pod["metadata"]["namespace"] != outside
        and pod["status"].get("phase") not in ("Succeeded", "Failed")
        for container in pod["spec"]["containers"]
    )


def _sum(amounts: Any) -> Room:
    known = list(amounts)
    cpu = sum(quantity(amount.get("cpu", "0")) for amount in known)
    memory = sum(quantity(amount.get("memory", "0")) for amount in known)
    return Room(cpu_millis=round(cpu * 1000), memory_mib=int(memory // _MIB))
