"""What can be reached from outside, and what may be asked of the cluster."""

from collections.abc import Iterator, Mapping, Sequence

from policies.rules.marks import EXPOSED, is_declared
from policies.rules.pods import WORKLOADS, Pod, pod_of
from policies.rules.reading import UNKNOWN, at, items_at, text_at, written
from policies.rules.rule import Declared, Properties, Rule, Violation

_EVERYWHERE = ("0.0.0.0/0", "::/0")
_GATES = frozenset({"kubernetes:networking.k8s.io/v1:Ingress", "kubernetes:extensions/v1beta1:Ingress"})
_OUTWARD = ("LoadBalancer", "NodePort")
_DEFAULT = "default"
_POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
_NAMESPACE = "kubernetes:core/v1:Namespace"
_STANDARD = "pod-security.kubernetes.io/enforce"
_ROLES = frozenset(f"kubernetes:rbac.authorization.k8s.io/v1:{kind}" for kind in ("Role", "ClusterRole"))
_UNDECLARED = f"and there is no annotation {EXPOSED}"


def exposure(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Nothing is reached from outside the cluster, unless declared."""
    if is_declared(properties, EXPOSED):
        return
    if resource_type in _GATES:
        yield Violation("", f"lets the world in {_UNDECLARED}")
    elif resource_type == "kubernetes:core/v1:Service":
        yield from _outward_addresses(properties)
    elif resource_type == _POLICY:
        yield from _open_ways(properties)
    elif pod := pod_of(resource_type, properties):
        yield from _of_the_node(pod)


def _outward_addresses(properties: Properties) -> Iterator[Violation]:
    kind = text_at(properties, "spec", "type")
    if kind in _OUTWARD:
        yield Violation("spec.type", f"is {kind} {_UNDECLARED}")
    for index, address in items_at(properties, "spec", "externalIPs"):
        yield Violation(f"spec.externalIPs[{index}]", f"is {address} {_UNDECLARED}")


def _of_the_node(pod: Pod) -> Iterator[Violation]:
    if at(pod.spec, "hostNetwork") is True:
        yield pod.violation(f"listens on the node {_UNDECLARED}", "hostNetwork")
    for container in pod.containers:
        for index, port in items_at(container.spec, "ports"):
            if at(port, "hostPort") not in (None, 0, UNKNOWN):
                yield container.violation(f"listens on the node {_UNDECLARED}", "ports", index, "hostPort")


def _open_ways(properties: Properties) -> Iterator[Violation]:
    for index, way in items_at(properties, "spec", "ingress"):
        sources = at(way, "from")
        if sources is None or sources == []:
            yield Violation(f"spec.ingress[{index}]", f"lets everybody in {_UNDECLARED}")
        for number, source in items_at(way, "from"):
            if at(source, "ipBlock", "cidr") in _EVERYWHERE:
                where = written("spec", "ingress", index, "from", number, "ipBlock", "cidr")
                yield Violation(where, f"lets the world in {_UNDECLARED}")


def namespaces(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Namespaces hold whatever is put into them to the restricted standard."""
    if resource_type == _NAMESPACE:
        standard = at(properties, "metadata", "labels", _STANDARD)
        if standard not in ("restricted", UNKNOWN):
            yield Violation("metadata.labels", f"{_STANDARD} is {standard}; it must be restricted")


def roles(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Roles name what they allow."""
    if resource_type not in _ROLES:
        return
    for index, rule in items_at(properties, "rules"):
        for part in ("apiGroups", "resources", "verbs"):
            if "*" in [item for _, item in items_at(rule, part)]:
                yield Violation(written("rules", index, part), "allows everything by *; name what is needed")


def closed_namespaces(resources: Sequence[Declared]) -> Iterator[tuple[Declared, Violation]]:
    """Where there are pods, all traffic is refused that no policy allows."""
    closed = [_namespace(resource) for resource in resources if _closes(resource)]
    if UNKNOWN in closed:
        return
    missed: set[str] = set()
    for resource in resources:
        namespace = _namespace(resource)
        if resource.type in WORKLOADS and isinstance(namespace, str) and namespace not in {*closed, *missed}:
            missed.add(namespace)
            what = f"the namespace {namespace} has no NetworkPolicy that closes it"
            yield resource, Violation("metadata.namespace", what)


def _namespace(resource: Declared) -> object:
    namespace = at(resource.properties, "metadata", "namespace")
    if namespace in (None, _DEFAULT):
        # In a preview the Kubernetes provider fills this in for a namespace that another resource will name.
        return UNKNOWN if resource.dependencies.get("metadata") else _DEFAULT
    return namespace


def _closes(resource: Declared) -> bool:
    """Whether it is a policy for all pods, in both directions, that allows nothing."""
    spec = at(resource.properties, "spec")
    if resource.type != _POLICY or not isinstance(spec, Mapping):
        return False
    chosen = at(spec, "podSelector")
    everyone = chosen is None or (isinstance(chosen, Mapping) and not any(chosen.values()))
    directions = {item for _, item in items_at(spec, "policyTypes")}
    return (
        everyone
        and directions >= {"Ingress", "Egress"}
        and not at(spec, "ingress")
        and not at(spec, "egress")
    )


RULES = (
    Rule(
        id="not-exposed",
        title="Nothing is reached from outside the cluster, unless declared",
        why="The services trust their clients more than they would trust the internet.",
        remedy="Use a Service of type ClusterIP, and no hostNetwork, hostPort, externalIPs or Ingress. Where it is "
        f"meant, say why in the annotation {EXPOSED}.",
        resource=exposure,
    ),
    Rule(
        id="namespace-restricted",
        title="Namespaces enforce the restricted pod security standard",
        why="Then the cluster itself refuses what these rules refuse, from every client.",
        remedy=f"Set the label {_STANDARD} to restricted.",
        resource=namespaces,
    ),
    Rule(
        id="namespace-closed",
        title="Namespaces with pods refuse all traffic that no policy allows",
        why="A pod that no policy selects may be reached by every pod of the cluster, and may reach the world.",
        remedy="Declare a NetworkPolicy in the namespace with an empty podSelector, the policyTypes Ingress and "
        "Egress, and no rules; then open the ways that are needed, each by a policy of its own.",
        stack=closed_namespaces,
    ),
    Rule(
        id="no-wildcard-role",
        title="Roles name what they allow",
        why="* allows what nobody thought of, today and in every later version of the cluster.",
        remedy="List the API groups, the resources and the verbs that the program uses.",
        resource=roles,
    ),
)
