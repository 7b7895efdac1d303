"""Services in a Kubernetes cluster."""

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from marketlake.cli.exit_codes import PlatformUnreachableError
from marketlake.cli.targets import ServiceStatus
from marketlake.infrastructure.kubernetes import quantity
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
        import kr8s

        try:
            with warnings.catch_warnings():  # it warns of each Kubernetes that is younger than itself
                warnings.simplefilter("ignore")
                api = kr8s.api(
                    kubeconfig=cluster.kubeconfig, context=cluster.context, namespace=cluster.namespace
                )
            api.timeout = TIMEOUT_S
            workloads = [*_listed(api, "deployments.apps"), *_listed(api, "statefulsets.apps")]
            pods = _listed(api, "pods")
        except (
            Exception
        ) as error:  # kr8s lets its HTTP client's, its parser's and the system's errors through
            named = f" of {cluster.kubeconfig}" if cluster.kubeconfig else ""
            raise PlatformUnreachableError(
                f"the Kubernetes cluster{named} does not show the namespace {cluster.namespace!r}: "
                f"{str(error) or type(error).__name__}. Is it up (`kubectl get nodes`), and is this kubeconfig its own?"
            ) from error
        return cls(cluster.namespace, workloads, pods, _metrics(api))

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


def _listed(api: Any, kind: str) -> list[Object]:
    return [one.raw for one in api.get(kind, label_selector=SERVICE_LABEL)]


def _metrics(api: Any) -> list[Object]:
    """Return what metrics-server measured; nothing where it is missing."""
    try:
        # where no server has metrics, kr8s takes the kind for plain pods
        return [one for one in _listed(api, "pods.metrics.k8s.io") if "containers" in one]
    except Exception:  # noqa: BLE001 - whatever it is, memory is not what a person looks here for first
        return []


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
