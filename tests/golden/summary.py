"""The plan of an environment as a page that a reviewer reads: `tests/golden/<environment>.md`."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from policies.rules.pods import pod_of
from policies.rules.reading import at, items_at
from tests.golden.plan import Planned, plan_of

FOLDER = Path(__file__).resolve().parent
_OURS = "pulumi-python:dynamic/marketlake"
_SECRET = "4dabf18193072939515e22adb298388d"
_COMPONENT = re.compile(r"marketlake:index:\w+")


def golden(environment: str) -> Path:
    """Where the page of an environment lies."""
    return FOLDER / f"{environment}.md"


def summary(environment: str) -> str:
    """The page."""
    planned = plan_of(environment)
    resources = [one for one in planned if not _COMPONENT.fullmatch(one.declared.type)]
    lines = [
        "<!-- Written by `make golden`: what `pulumi up` makes of this environment's settings. -->",
        f"# Plan of `{environment}`",
        "",
        f"{len(planned)} resources, {len(planned) - len(resources)} of them components.",
    ]
    for parent in sorted({one.parent for one in resources}):
        lines += ["", f"## {parent or 'the stack itself'}", ""]
        lines += [_line(one) for one in resources if one.parent == parent]
    return "\n".join(lines) + "\n"


def _line(one: Planned) -> str:
    kind = one.declared.type
    telling = _TELLING.get(kind)
    told = list(telling(one.declared.properties)) if telling else []
    text = f"- {kind.rpartition(':')[2]} `{one.declared.name}`"
    return f"{text}: {'; '.join(told)}" if told else text


Properties = Mapping[str, Any]


def _chosen(*names: str) -> Callable[[Properties], Iterator[str]]:
    def tell(properties: Properties) -> Iterator[str]:
        for name in names:
            value = at(properties, name)
            if value or (value is False and name == "versioning"):
                yield f"{name} {_value(value)}"

    return tell


def _value(value: Any) -> str:
    """A value on one line; a secret is one."""
    match value:
        case Mapping() if _SECRET in value:
            return "[secret]"
        case Mapping():
            return ", ".join(f"{key}={_value(item)}" for key, item in sorted(value.items())) or "none"
        case list():
            return ", ".join(map(_value, value)) or "none"
        case float() if value.is_integer():
            return str(int(value))
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def _process(properties: Properties) -> Iterator[str]:
    yield from _chosen("replicas", "health", "keep_data", "unprivileged")(properties)
    if at(properties, "volumes"):
        yield f"volumes {_value(at(properties, 'volumes'))} MiB"
    for part in ("files", "secret_files", "secret_environment"):
        names = _names(at(properties, part))
        if names:
            yield f"{part} {names}"


def _names(mapping: Any) -> str:
    """Keys, which are no secret even where the values are."""
    inner = mapping.get("value") if isinstance(mapping, Mapping) and _SECRET in mapping else mapping
    return ", ".join(sorted(inner)) if isinstance(inner, Mapping) else ""


def _workload(properties: Properties) -> Iterator[str]:
    replicas = at(properties, "spec", "replicas")
    yield "replicas by its autoscaler" if replicas is None else f"replicas {_value(replicas)}"
    pod = pod_of("kubernetes:apps/v1:Deployment", properties)
    if pod:
        for container in pod.containers:
            yield from _container(container.path[-2], container.spec)
        if at(pod.spec, "priorityClassName"):
            yield f"priority {at(pod.spec, 'priorityClassName')}"
    for _, claim in items_at(properties, "spec", "volumeClaimTemplates"):
        size = at(claim, "spec", "resources", "requests", "storage")
        kind = at(claim, "spec", "storageClassName") or "the default class"
        yield f"volume {at(claim, 'metadata', 'name')} {size} of {kind}"


def _container(role: Any, spec: Properties) -> Iterator[str]:
    image = str(at(spec, "image")).partition("@")[0]
    needs = [
        f"{measured} {at(spec, 'resources', 'requests', measured)} to {at(spec, 'resources', 'limits', measured)}"
        for measured in ("cpu", "memory")
    ]
    ports = [f"{at(port, 'name')} {_value(at(port, 'containerPort'))}" for _, port in items_at(spec, "ports")]
    before = "first " if role == "initContainers" else ""
    yield f"{before}{at(spec, 'name')} from {image} ({', '.join([*needs, *ports])})"


def _service(properties: Properties) -> Iterator[str]:
    ports = [
        f"{at(port, 'name')} {_value(at(port, 'port'))}" for _, port in items_at(properties, "spec", "ports")
    ]
    yield f"{at(properties, 'spec', 'type')} {', '.join(ports)}"


def _network_policy(properties: Properties) -> Iterator[str]:
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        ways = [
            f"{_peers(at(way, peers))} on {_ports(way)}" for _, way in items_at(properties, "spec", direction)
        ]
        yield f"{peers} {' and '.join(ways) or 'nowhere'}"


def _peers(peers: Any) -> str:
    if not peers:
        return "anywhere"
    told = []
    for _, peer in items_at(peers):
        labels = at(peer, "podSelector", "matchLabels") or at(peer, "namespaceSelector", "matchLabels")
        told.append(_labels(labels) if labels else _block(at(peer, "ipBlock")))
    return ", ".join(told)


def _block(block: Any) -> str:
    excepted = len(list(items_at(block, "except")))
    return _value(at(block, "cidr")) + (f" but {excepted} networks" if excepted else "")


def _labels(labels: Properties) -> str:
    """The service or the namespace that is meant; failing that, the labels."""
    named = labels.get("marketlake/service") or labels.get("kubernetes.io/metadata.name")
    return str(named or ", ".join(sorted(labels)))


def _ports(way: Any) -> str:
    return ", ".join(sorted({_value(at(port, "port")) for _, port in items_at(way, "ports")})) or "any port"


def _keys(properties: Properties) -> Iterator[str]:
    for part in ("data", "stringData"):
        if names := _names(at(properties, part)):
            yield names


def _role(properties: Properties) -> Iterator[str]:
    for _, rule in items_at(properties, "rules"):
        yield f"{_value(at(rule, 'resources'))}: {_value(at(rule, 'verbs'))}"


def _autoscaler(properties: Properties) -> Iterator[str]:
    spec = at(properties, "spec")
    yield f"{_value(at(spec, 'minReplicas'))} to {_value(at(spec, 'maxReplicas'))} replicas"


_TELLING: Mapping[str, Callable[[Properties], Iterator[str]]] = {
    f"{_OURS}:Bucket": _chosen("bucket", "versioning", "access", "force_destroy", "tags"),
    f"{_OURS}:Topic": _chosen("topic", "partitions", "replication_factor", "config"),
    f"{_OURS}:SqlDatabase": _chosen("name", "owner"),
    f"{_OURS}:StoreUser": _chosen("user", "buckets"),
    f"{_OURS}:WorkPool": _chosen("work_pool", "worker_type", "concurrency_limit"),
    f"{_OURS}:FlowDeployment": _chosen("flow", "deployment", "entrypoint"),
    f"{_OURS}:Ports": _chosen("preferred", "pinned"),
    f"{_OURS}:Supervisor": _chosen("folder", "keep_data"),
    f"{_OURS}:ClusterNamespace": _chosen("namespace", "keep_data"),
    f"{_OURS}:PlatformFile": _chosen("path"),
    f"{_OURS}:Process": _process,
    "kubernetes:apps/v1:Deployment": _workload,
    "kubernetes:apps/v1:StatefulSet": _workload,
    "kubernetes:core/v1:Service": _service,
    "kubernetes:core/v1:ConfigMap": _keys,
    "kubernetes:core/v1:Secret": _keys,
    "kubernetes:networking.k8s.io/v1:NetworkPolicy": _network_policy,
    "kubernetes:rbac.authorization.k8s.io/v1:Role": _role,
    "kubernetes:autoscaling/v2:HorizontalPodAutoscaler": _autoscaler,
    "kubernetes:policy/v1:PodDisruptionBudget": lambda properties: _chosen("maxUnavailable")(
        at(properties, "spec") or {}
    ),
    "kubernetes:scheduling.k8s.io/v1:PriorityClass": _chosen("value"),
}
