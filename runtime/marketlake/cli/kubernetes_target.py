"""Services in a Kubernetes cluster."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from marketlake.cli.exit_codes import PlatformUnreachableError
from marketlake.cli.targets import ServiceStatus
from marketlake.infrastructure.kubernetes import ClusterApiError, quantity
from marketlake.settings import Cluster

SERVICE_LABEL = "marketlake/service"
TIMEOUT_S = 10
_PASSING = frozenset({"ContainerCreating", "PodInitializing"})

Object = Mapping[str, Any]


class KubernetesTarget:
    """Workloads of one namespace, as they were at one moment; see :class:`marketlake.cli.targets.Target`."""

    def __init__(
        self, namespace: str, workloads: Sequence[Object], pods: Sequence[Object], metrics: Sequence[Object]
    ) -> None:
        self.hint = (
            f"`kubectl -n {namespace} describe pod -l {SERVICE_LABEL}=NAME` says what keeps a service from running, "
            f"`kubectl -n {namespace} logs -l {SERVICE_LABEL}=NAME` what it said; `make up` brings back what is gone"
        )
        self._workloads = {f"{one['kind'].lower()}/{one['metadata']['name']}": one for one in workloads}
        self._pods = pods
        self._metrics = {one["metadata"]["name"]: one for one in metrics}

    @classmethod
    def of(cls, cluster: Cluster) -> Self:
        """Read a namespace once, for all services.

        Raises:
            PlatformUnreachableError: the cluster does not answer, or refuses.
        """
        try:
            workloads, pods, metrics = asyncio.run(_read(cluster))
        except ClusterApiError as error:
            named = f" of {cluster.kubeconfig}" if cluster.kubeconfig else ""
            raise PlatformUnreachableError(
                f"the Kubernetes cluster{named} does not show the namespace {cluster.namespace!r}: {error}. "
                "Is it up (`kubectl get nodes`), and is this kubeconfig its own?"
            ) from error
        return cls(cluster.namespace, workloads, pods, metrics)

    def status(self, control: str) -> ServiceStatus:
        """Return the status of the pods of `kubernetes:<namespace>/<deployment|statefulset>/<name>`."""
        _, _, path = control.partition("/")
        name = path.rpartition("/")[2]
        workload = self._workloads.get(path)
        if workload is None:
            return ServiceStatus(trouble=f"the cluster has no {path.replace('/', ' ')}")
        pods = [one for one in self._pods if one["metadata"]["labels"][SERVICE_LABEL] == name]
        desired = workload["spec"].get("replicas", 1)
        ready = [one for one in pods if _is_ready(one)]
        troubles = sorted({trouble for one in pods if (trouble := _trouble(one))})
        if len(ready) < desired:
            troubles.insert(0, f"{len(ready)} of {desired} ready")
        known = [
            self._metrics[one["metadata"]["name"]] for one in pods if one["metadata"]["name"] in self._metrics
        ]
        return ServiceStatus(
            running=len(ready),
            trouble=": ".join([troubles[0], "; ".join(troubles[1:])]).removesuffix(": ")
            if troubles
            else None,
            memory_bytes=sum(map(_memory, known)) if known else None,
            uptime_s=min((age for one in ready if (age := _uptime(one)) is not None), default=None),
            restarts=sum(state.get("restartCount", 0) for one in pods for state in _states(one)),
        )


async def _read(cluster: Cluster) -> tuple[list[Object], list[Object], list[Object]]:
    """Return the workloads and pods of a namespace, and what metrics-server measured; nothing where it is missing."""
    from marketlake.infrastructure.kubernetes.client import connect, listed  # takes a second

    api = await connect(
        kubeconfig=cluster.kubeconfig,
        context=cluster.context,
        namespace=cluster.namespace,
        connect_timeout_s=TIMEOUT_S,
        timeout_s=TIMEOUT_S,
    )
    workloads: list[Object] = [
        {**one, "kind": kind}  # which a list's items leave out
        for kind in ("Deployment", "StatefulSet")
        for one in await listed(api, "apps/v1", f"{kind.lower()}s", labels=SERVICE_LABEL)
    ]
    pods = await listed(api, "v1", "pods", labels=SERVICE_LABEL)
    try:
        metrics = await listed(api, "metrics.k8s.io/v1beta1", "pods", labels=SERVICE_LABEL)
    except ClusterApiError:  # memory is not what a person looks here for first
        metrics = []
    return workloads, pods, metrics


def _states(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _is_ready(pod: Object) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True"
        for one in pod.get("status", {}).get("conditions", ())
    )


def _trouble(pod: Object) -> str | None:
    """Return why the pod is not scheduled, or why a container does not run, as Kubernetes reports it."""
    for one in pod.get("status", {}).get("conditions", ()):
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return f"pending: {one.get('message') or one.get('reason', '')}"
    for one in _states(pod):
        state = one.get("state", {})
        waiting = state.get("waiting", {})
        now = state.get("terminated", {})
        reason = waiting.get("reason", "") or (now.get("exitCode") and now.get("reason", "Error"))
        if not reason or reason in _PASSING:
            continue
        last = now or one.get("lastState", {}).get("terminated", {})
        words = [waiting.get("message", "")]
        if last:
            said = last.get("message", "").strip().splitlines()
            words = [f"{last.get('reason', 'ended')}, exit code {last.get('exitCode')}", *said[-1:]]
        return f"{reason} ({one['name']}): {', '.join(filter(None, words))}".removesuffix(": ")
    return None


def _memory(metrics: Object) -> int:
    return int(sum(quantity(one["usage"]["memory"]) for one in metrics["containers"]))


def _uptime(pod: Object) -> float | None:
    begun = [
        datetime.fromisoformat(state["state"]["running"]["startedAt"])
        for state in _states(pod)
        if "startedAt" in state.get("state", {}).get("running", {})
    ]
    return round((datetime.now(UTC) - max(begun)).total_seconds(), 1) if begun else None
