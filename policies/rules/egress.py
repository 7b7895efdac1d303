"""Where pods may connect to."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from policies.rules.marks import OPEN_EGRESS, is_declared
from policies.rules.reading import UNKNOWN, at, is_known, items_at, written
from policies.rules.rule import Properties, Rule, Violation

Network = IPv4Network | IPv6Network

_POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
_OF_CLUSTERS: Sequence[Network] = tuple(
    map(
        ip_network,
        (
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)
"""Private, shared and link-local networks: there pods, services, nodes and metadata services are."""
_WIDEST_OWN = {4: 8, 6: 16}
"""By IP version: the shortest prefix of a network that can be meant for itself, and not as the world."""
_UNDECLARED = f"and there is no annotation {OPEN_EGRESS}"


def egress(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Ways to the world do not lead into the cluster, unless declared."""
    if resource_type != _POLICY or is_declared(properties, OPEN_EGRESS):
        return
    for index, way in items_at(properties, "spec", "egress"):
        if at(way, "to") in (None, []):
            yield Violation(written("spec", "egress", index), f"leads everywhere {_UNDECLARED}")
        for number, destination in items_at(way, "to"):
            where = written("spec", "egress", index, "to", number)
            if at(destination, "namespaceSelector") == {} and not at(destination, "podSelector"):
                yield Violation(where, f"leads to every pod of the cluster {_UNDECLARED}")
            world = _world(at(destination, "ipBlock"))
            if world is None:
                continue
            if not at(way, "ports"):
                yield Violation(where, f"leads to every port of the world {_UNDECLARED}")
            if left := _left_open(world, at(destination, "ipBlock", "except")):
                networks = ", ".join(map(str, left))
                yield Violation(
                    f"{where}.ipBlock", f"does not except {networks}, where clusters are, {_UNDECLARED}"
                )


def _world(block: Any) -> Network | None:
    """The network of a block that is too wide to be meant for itself."""
    network = _network(at(block, "cidr"))
    return network if network and network.prefixlen < _WIDEST_OWN[network.version] else None


def _left_open(world: Network, excepted: Any) -> list[Network]:
    """The networks of clusters that a block of the world does not except, as far as can be seen."""
    if excepted is UNKNOWN or not all(map(is_known, excepted or ())):
        return []
    closed = [network for text in excepted or () if (network := _network(text))]
    return [
        network
        for network in _OF_CLUSTERS
        if _is_within(network, world) and not any(_is_within(network, outer) for outer in closed)
    ]


def _is_within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _network(text: object) -> Network | None:
    try:
        return ip_network(text) if isinstance(text, str) else None
    except ValueError:
        return None


RULES = (
    Rule(
        id="no-open-egress",
        title="Ways to the world do not lead into the cluster, unless declared",
        why="A program that reads what strangers publish, and is broken into by it, must not reach the API server, the "
        "nodes, other namespaces, or the cloud's metadata service.",
        remedy="In each egress rule of a NetworkPolicy, name where it leads. Where that is the world, name the ports, "
        "and except all private, shared and link-local networks from the ipBlock. Where it is meant, say why in the "
        f"annotation {OPEN_EGRESS}.",
        resource=egress,
    ),
)
