"""Network policies: everything is closed, and each service opens the connections that its definition names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from components.kubernetes.labels import caller_of, selector
from components.service import ExternalServer, Service

API_SERVER_PORTS = (443, 6443)
NOT_PUBLIC = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
)
"""Where clusters have their pods, services and nodes, and clouds hand out a node's credentials (169.254.169.254).

The IPv4 networks that are not globally reachable: IANA's special-purpose address registry (RFC 6890), and multicast
and reserved addresses.
"""
_ANYWHERE = "0.0.0.0/0"

DENY_ALL: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
"""Spec of the policy that closes a namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """Networks of one cluster that policies have to know."""

    operators: Sequence[str] = ()
    """May reach every service."""
    closed: Sequence[str] = ()
    """The cluster's own, beside those of :data:`NOT_PUBLIC`: no external server is there."""
    external: Sequence[str] = ()
    """Networks that would be closed, and that external servers are in."""


def policy_of(
    service: Service, stack: str, *, calls_api_server: bool, networks: Networks = Networks()
) -> dict[str, Any]:
    """Spec of a service's NetworkPolicy.

    What a service calls, only it knows, and whom it answers, only its callers do: so callers carry a label for each
    service that they call, and a service lets in who carries its label. Probes come from the node, which a policy
    never keeps out.
    """
    ports = [port for port in service.ports.values() if not port.private]
    ingress = []
    if ports:
        ingress.append(
            {
                "from": [
                    {"podSelector": {"matchLabels": {caller_of(service.name): "true"}}},
                    *({"ipBlock": {"cidr": network}} for network in networks.operators),
                ],
                "ports": [{"protocol": "TCP", "port": port.preferred} for port in ports],
            }
        )
    return {
        "podSelector": {"matchLabels": selector(stack, service.name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": list(_ways_out(service, stack, networks, calls_api_server=calls_api_server)),
    }


def _ways_out(
    service: Service, stack: str, networks: Networks, *, calls_api_server: bool
) -> Iterator[dict[str, Any]]:
    yield {
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }
    if service.calls:
        yield {"to": [{"podSelector": {"matchLabels": selector(stack, called)}} for called in service.calls]}
    if calls_api_server:
        yield {"ports": _tcp(API_SERVER_PORTS)}
    yield from _external_ways(service.calls_external, networks)


def _external_ways(servers: Sequence[ExternalServer], networks: Networks) -> Iterator[dict[str, Any]]:
    """An address is opened as it is; a name, which policies do not know, as every place where it may lie."""
    named = {server.port for server in servers if is_named(server)}
    if named:
        beyond = {"cidr": _ANYWHERE, "except": sorted({*NOT_PUBLIC, *networks.closed}, key=ip_network)}
        blocks = [beyond, *({"cidr": network} for network in networks.external)]
        yield {"to": [{"ipBlock": block} for block in blocks], "ports": _tcp(sorted(named))}
    addressed = {(address, server.port) for server in servers if (address := _address(server))}
    for address, port in sorted(addressed):
        yield {"to": [{"ipBlock": {"cidr": address}}], "ports": _tcp([port])}


def is_named(server: ExternalServer) -> bool:
    """Whether nothing but its name, or not even that, says where a server is."""
    return _address(server) is None


def _address(server: ExternalServer) -> str | None:
    """The network of a server that is given by its IP address."""
    try:
        return str(ip_network(ip_address(server.host or "")))
    except ValueError:
        return None


def _tcp(ports: Sequence[int]) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in ports]
