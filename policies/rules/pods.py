"""Where pods are declared: in workloads, and in what makes workloads later."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policies.rules.reading import Step, at, items_at, pairs_at, written
from policies.rules.rule import Properties, Violation

_TEMPLATE: tuple[Step, ...] = ("spec", "template")
_JOB_TEMPLATE: tuple[Step, ...] = ("spec", "jobTemplate", "spec", "template")
_FLOW_RUN: tuple[Step, ...] = ("base_job_template", "job_configuration", "job_manifest", "spec", "template")
_TEMPLATES: Mapping[str, tuple[Step, ...]] = {
    "kubernetes:core/v1:Pod": (),
    "kubernetes:core/v1:ReplicationController": _TEMPLATE,
    "kubernetes:apps/v1:Deployment": _TEMPLATE,
    "kubernetes:apps/v1:StatefulSet": _TEMPLATE,
    "kubernetes:apps/v1:DaemonSet": _TEMPLATE,
    "kubernetes:apps/v1:ReplicaSet": _TEMPLATE,
    "kubernetes:batch/v1:Job": _TEMPLATE,
    "kubernetes:batch/v1:CronJob": _JOB_TEMPLATE,
    # What a Prefect worker makes the Jobs of its flow runs from.
    "pulumi-python:dynamic/marketlake:WorkPool": _FLOW_RUN,
}
WORKLOADS = frozenset(kind for kind in _TEMPLATES if kind.startswith("kubernetes:"))
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod."""

    path: tuple[Step, ...]
    spec: Mapping[str, Any]

    def violation(self, what: str, *inside: Step) -> Violation:
        """A violation at a path within the container."""
        return Violation(written(*self.path, *inside), what)


@dataclass(frozen=True, slots=True)
class Pod:
    """The pod that a resource declares."""

    path: tuple[Step, ...]
    spec: Mapping[str, Any]
    resource: Properties
    """All of the resource, where its declarations stand."""

    @property
    def containers(self) -> Iterator[Container]:
        """All containers that can be looked at."""
        for kind in _CONTAINERS:
            for index, container in items_at(self.spec, kind):
                if isinstance(container, Mapping):
                    yield Container((*self.path, kind, index), container)

    def violation(self, what: str, *inside: Step) -> Violation:
        """A violation at a path within the pod's spec."""
        return Violation(written(*self.path, *inside), what)


def pod_of(resource_type: str, properties: Properties) -> Pod | None:
    """The pod that a resource declares, if it declares one that can be looked at."""
    template = _TEMPLATES.get(resource_type)
    if template is None:
        return None
    path = (*template, "spec")
    spec = at(properties, *path)
    return Pod(path, spec, properties) if isinstance(spec, Mapping) else None


def containers_of(resource_type: str, properties: Properties) -> Iterator[Container]:
    """The containers that a resource declares."""
    pod = pod_of(resource_type, properties)
    if pod is not None:
        yield from pod.containers


def literals_of(resource_type: str, properties: Properties) -> Iterator[tuple[str, str, str]]:
    """Environment variables whose value is written out: where, name, value."""
    for container in containers_of(resource_type, properties):
        for index, variable in items_at(container.spec, "env"):
            name, value = at(variable, "name"), at(variable, "value")
            if isinstance(name, str) and isinstance(value, str):
                yield written(*container.path, "env", index), name, value
    for name, value in pairs_at(properties, "environment"):
        if resource_type == "pulumi-python:dynamic/marketlake:Process" and isinstance(value, str):
            yield f"environment.{name}", name, value
