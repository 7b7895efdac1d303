"""Network policies: everything is closed, and each service opens the connections that its definition names."""

from collections.abc import Iterator, Sequence
from typing import Any

from components.kubernetes.labels import caller_of, selector
from components.service import Service

API_SERVER_PORTS = (443, 6443)
_LINK_LOCAL = "169.254.0.0/16"
"""Where clouds hand out a node's credentials: no pod has business there."""

DENY_ALL: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
"""Spec of the policy that closes a namespace."""


def policy_of(
    service: Service, stack: str, *, calls_api_server: bool, operators: Sequence[str] = ()
) -> dict[str, Any]:
    """Spec of a service's NetworkPolicy, which lets in the networks of `operators` as well.

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
                    *({"ipBlock": {"cidr": network}} for network in operators),
                ],
                "ports": [{"protocol": "TCP", "port": port.preferred} for port in ports],
            }
        )
    return {
        "podSelector": {"matchLabels": selector(stack, service.name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": list(_ways_out(service, stack, calls_api_server=calls_api_server)),
    }


def _ways_out(service: Service, stack: str, *, calls_api_server: bool) -> Iterator[dict[str, Any]]:
    yield {
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }
    if service.calls:
        yield {"to": [{"podSelector": {"matchLabels": selector(stack, called)}} for called in service.calls]}
    if calls_api_server:
        yield {"ports": [{"protocol": "TCP", "port": port} for port in API_SERVER_PORTS]}
    if service.calls_world:
        yield {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [_LINK_LOCAL]}}]}
