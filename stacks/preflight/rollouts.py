"""Which workloads are not what Pulumi made of them yet, and what their pods say.

Pulumi's Kubernetes provider judges a workload by the first event that it sees after a change, and takes it for ready
if the controller was slow to look at it (tried with pulumi-kubernetes 4: right after a node's daemons were restarted,
and on a busy machine). So what it says is checked once more.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]
_ON_THE_WAY = ("ContainerCreating", "PodInitializing")
_GIVEN_UP = "ProgressDeadlineExceeded"
_USUAL_DEADLINE_S = 600
"""Of a Deployment that names none."""


class RolloutError(Exception):
    """Pods do not become what the settings say; the message has their own words."""


@dataclass(frozen=True, slots=True)
class Rollouts:
    """The Deployments and StatefulSets of a stack, and its pods."""

    workloads: Sequence[Object]
    pods: Sequence[Object]

    @property
    def unfinished(self) -> list[str]:
        """A line for each workload that has not as many ready pods of its newest version as it should."""
        return [self._told(workload) for workload in self.workloads if not _is_finished(workload)]

    @property
    def given_up(self) -> bool:
        """Whether Kubernetes itself says of one that it makes no progress."""
        conditions = (
            condition
            for workload in self.workloads
            if _is_seen(workload)
            for condition in workload.get("status", {}).get("conditions", ())
        )
        return any(condition.get("reason") == _GIVEN_UP for condition in conditions)

    @property
    def deadline_s(self) -> int:
        """How long the slowest of them may make no progress."""
        named = (workload["spec"].get("progressDeadlineSeconds") for workload in self.workloads)
        return max(filter(None, named), default=_USUAL_DEADLINE_S)

    def _told(self, workload: Object) -> str:
        ready, wanted = workload.get("status", {}).get("readyReplicas", 0), _wanted(workload)
        said = sorted(set(self._said_by_pods(workload)))
        return f"{workload['metadata']['name']}: {ready} of {wanted} pods ready" + "".join(
            f"\n    {line}" for line in said
        )

    def _said_by_pods(self, workload: Object) -> Iterator[str]:
        labels = workload["spec"]["selector"]["matchLabels"].items()
        for pod in self.pods:
            if labels <= pod["metadata"].get("labels", {}).items():
                yield from (f"{pod['metadata']['name']}: {words}" for words in _said_by(pod))


def _said_by(pod: Object) -> Iterator[str]:
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") not in (None, *_ON_THE_WAY):
            yield _words(waiting)
        if ended := container.get("lastState", {}).get("terminated"):
            yield _words(ended)
    yield from (
        _words(condition)
        for condition in status.get("conditions", ())
        if condition["type"] == "PodScheduled" and condition["status"] == "False"
    )


def _words(state: Object) -> str:
    return ": ".join(filter(None, (state.get("reason"), str(state.get("message", "")).strip())))


def _is_finished(workload: Object) -> bool:
    status, wanted = workload.get("status", {}), _wanted(workload)
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")]
    return _is_seen(workload) and counts == [wanted] * 3 and _is_of_one_revision(status)


def _is_seen(workload: Object) -> bool:
    """Whether its controller has looked at it since it was changed."""
    return int(workload.get("status", {}).get("observedGeneration", 0)) >= int(
        workload["metadata"]["generation"]
    )


def _is_of_one_revision(status: Object) -> bool:
    """Of a StatefulSet; a Deployment has none."""
    return status.get("currentRevision") == status.get("updateRevision")


def _wanted(workload: Object) -> int:
    return int(workload["spec"].get("replicas", 1))
