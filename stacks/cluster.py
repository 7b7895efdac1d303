"""Looking at a Kubernetes cluster from outside of Pulumi: whether it can take a stack, and what is left of one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import psutil
import yaml

from components.kubernetes.client import any_version
from components.kubernetes.labels import INSTANCE, PART_OF, PLATFORM, STACK

PATIENCE_S = 5.0
"""How long a cluster may take to answer at first."""
_ASK_S = 30.0
_DISCARD_S = 25.0
_PAUSE_S = 0.5
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_METRICS = "v1beta1.metrics.k8s.io"
_LISTED_IMAGES = 50
"""The kubelet's usual ``nodeStatusMaxImages``: of more, it names the largest only."""
_FORBIDDEN = 403
_IPV4 = 4
_UNITS: Mapping[str, float] = {
    "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "m": 1e-3,
}  # fmt: skip
_MIB = 1024**2

Result = TypeVar("Result")
Api = Any
"""kr8s' client, which has no types."""


class ClusterUnreachableError(Exception):
    """A cluster does not answer; the message says where, why, and what to do."""


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
    """The stack that the namespace belongs to; an empty text for a namespace of somebody else's, None for none."""
    allocatable: Room | None
    """What pods may be given."""
    taken: Room | None
    """What pods of other namespaces have been given."""
    has_metrics: bool | None
    """It measures what pods use."""
    front: str | None = None
    """Virtual address of the API server, as pods see it, with its port: ``10.96.0.1:443``."""
    networks: frozenset[str] = frozenset()
    """IPv4 networks and addresses of nodes, of their pods, and of the API server, as far as they can be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAccess:
    """The way to a cluster, and to one namespace of it."""

    kubeconfig: Path
    context: str | None
    namespace: str

    @property
    def server(self) -> str:
        """URL of its API server, as the kubeconfig file says."""
        try:
            config = yaml.safe_load(self.kubeconfig.read_text())
            context = self.context or config["current-context"]
            named = {entry["name"]: entry for entry in config["contexts"]}
            clusters = {entry["name"]: entry for entry in config["clusters"]}
            return str(clusters[named[context]["context"]["cluster"]]["cluster"]["server"])
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            chosen = repr(self.context) if self.context else "that is its current one"
            raise ClusterUnreachableError(
                f"{self.kubeconfig} knows no cluster of the context {chosen}: {error!r}. "
                "`kubectl config get-contexts` lists those that it has; `pulumi config set --path "
                "marketlake:kubernetes.context NAME` chooses one."
            ) from None

    @property
    def is_here(self) -> bool:
        """Whether the API server listens at an address of this machine.

        Raises:
            ClusterUnreachableError: the kubeconfig file does not say where it is.
        """
        own = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
        return urlsplit(self.server).hostname in own

    def survey(self) -> Survey:
        """Look at what a stack needs of the cluster.

        Raises:
            ClusterUnreachableError: it does not answer.
        """

        async def look(api: Api) -> Survey:
            namespaces = await _list(api, "v1", "namespaces")
            nodes, pods = await _list(api, "v1", "nodes"), await _list(api, "v1", "pods")
            classes = await _list(api, "storage.k8s.io/v1", "storageclasses")
            services = await _list(api, "apiregistration.k8s.io/v1", "apiservices")
            front = _front(await _list(api, "v1", "services", namespace="default") or [])
            return Survey(
                version=await _version(api),
                storage_classes=None if classes is None else dict(map(_storage_class, classes)),
                owner=_owner(namespaces or [], self.namespace),
                allocatable=None if nodes is None else _allocatable(nodes),
                taken=None if pods is None else _taken(pods, besides=self.namespace),
                has_metrics=None
                if services is None
                else any(item["metadata"]["name"] == _METRICS for item in services),
                front=front,
                networks=frozenset(_networks(nodes or [], front)),
            )

        return self._ask(look)

    def images(self) -> frozenset[str] | None:
        """Names of the images that every node has; None where that cannot be seen, or nodes do not list all.

        Raises:
            ClusterUnreachableError: the cluster does not answer.
        """

        async def look(api: Api) -> frozenset[str] | None:
            return _images(await _list(api, "v1", "nodes") or [])

        return self._ask(look)

    def discard(self, wanted: Mapping[str, Any]) -> bool:
        """Delete an object, of which kind, namespace and name count, and what it owns; False if it is not there.

        Raises:
            ClusterUnreachableError: the cluster does not answer.
        """

        async def delete(api: Api) -> bool:
            from kr8s import NotFoundError
            from kr8s.asyncio.objects import object_from_spec

            item = object_from_spec(dict(wanted), api=api, allow_unknown_type=True)
            try:
                await item.delete(propagation_policy="Foreground")
            except NotFoundError:
                return False
            deadline = time.monotonic() + _DISCARD_S
            while await item.exists():
                if time.monotonic() > deadline:
                    raise ClusterUnreachableError(
                        f"{item.kind} {item.name} is still being deleted after {_DISCARD_S} s: `kubectl -n "
                        f"{self.namespace} get {item.kind} {item.name} -o yaml` says what it waits for"
                    )
                await asyncio.sleep(_PAUSE_S)
            return True

        return self._ask(delete)

    def remains(self, stack: str) -> list[str]:
        """What there still is of a stack: its namespace, and objects outside of any. Volumes count with them.

        Raises:
            ClusterUnreachableError: the cluster does not answer.
        """

        async def look(api: Api) -> list[str]:
            namespaces = await _list(api, "v1", "namespaces") or []
            found = [f"namespace {self.namespace}"] if _owner(namespaces, self.namespace) == stack else []
            classes = await _list(api, "scheduling.k8s.io/v1", "priorityclasses", labels=_labels(stack)) or []
            found += [f"priorityclass {item['metadata']['name']}" for item in classes]
            volumes = await _list(api, "v1", "persistentvolumes") or []
            found += [
                f"persistentvolume {item['metadata']['name']}"
                for item in volumes
                if (item["spec"].get("claimRef") or {}).get("namespace") == self.namespace
            ]
            return found

        return self._ask(look)

    def working(self) -> list[str]:
        """The pods in the namespace.

        Raises:
            ClusterUnreachableError: the cluster does not answer.
        """

        async def look(api: Api) -> list[str]:
            pods = await _list(api, "v1", "pods", namespace=self.namespace) or []
            return [f"pod {item['metadata']['name']}" for item in pods]

        return self._ask(look)

    def remove(self, stack: str, *, keep_data: bool) -> list[str]:
        """Delete what there is of a stack whose state is gone, and tell what; it is not waited for.

        Raises:
            ClusterUnreachableError: the cluster does not answer.
        """

        async def delete(api: Api) -> list[str]:
            gone = []
            namespaces = await _list(api, "v1", "namespaces") or []
            if _owner(namespaces, self.namespace) == stack and not keep_data:
                await _delete(api, "v1", f"namespaces/{self.namespace}")
                gone.append(f"namespace {self.namespace}")
            elif keep_data:
                gone += await self._delete_runs(api, stack)
            for item in (
                await _list(api, "scheduling.k8s.io/v1", "priorityclasses", labels=_labels(stack)) or []
            ):
                name = item["metadata"]["name"]
                await _delete(api, "scheduling.k8s.io/v1", f"priorityclasses/{name}")
                gone.append(f"priorityclass {name}")
            return gone

        return self._ask(delete)

    async def _delete_runs(self, api: Api, stack: str) -> list[str]:
        """The Jobs of flow runs, which the workflow worker made: Pulumi does not know them."""
        jobs = await _list(api, "batch/v1", "jobs", namespace=self.namespace, labels=f"{STACK}={stack}") or []
        names = [item["metadata"]["name"] for item in jobs]
        for name in names:
            await _delete(
                api,
                "batch/v1",
                f"jobs/{name}",
                namespace=self.namespace,
                params={"propagationPolicy": "Background"},
            )
        return [f"job {name}" for name in names]

    def _ask(self, action: Callable[[Api], Awaitable[Result]]) -> Result:
        server = self.server
        try:
            # A thread of its own: Pulumi runs programs inside an event loop.
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(asyncio.run, self._session(action)).result()
        except (OSError, TimeoutError, httpx.HTTPError, ValueError) as error:
            reason = (
                f"no answer within {PATIENCE_S:.0f} s"
                if isinstance(error, TimeoutError)
                else str(error).partition("\n")[0]
            )
        except Exception as error:
            if not _is_of_the_client(error):
                raise
            reason = str(error)
        raise ClusterUnreachableError(
            f"The cluster at {server} ({self.kubeconfig}) does not answer as it should: {reason or 'no reason given'}. "
            "Look whether it runs: `kubectl cluster-info`; `make cluster` starts the one of this machine. Another one "
            "is chosen with `pulumi config set --path marketlake:kubernetes.kubeconfig PATH`."
        )

    async def _session(self, action: Callable[[Api], Awaitable[Result]]) -> Result:
        import kr8s  # takes a second, and a host needs none of it

        async with asyncio.timeout(PATIENCE_S):
            with any_version():  # what the platform needs of a version is checked here
                api = await kr8s.asyncio.api(kubeconfig=str(self.kubeconfig), context=self.context)
        api.timeout = _ASK_S
        return await action(api)


def _is_of_the_client(error: Exception) -> bool:
    return type(error).__module__.startswith("kr8s.")


def _labels(stack: str) -> str:
    return f"{PART_OF}={PLATFORM},{INSTANCE}={stack}"


async def _version(api: Api) -> tuple[int, int]:
    told = await api.version()
    return int(told["major"]), int(told["minor"].rstrip("+"))


async def _list(
    api: Api, version: str, plural: str, *, namespace: str | None = None, labels: str | None = None
) -> list[dict[str, Any]] | None:
    """All objects of a kind; None if whoever asks may not see them."""
    params = {"labelSelector": labels} if labels else {}
    async with api.call_api(
        "GET", version=version, url=plural, namespace=namespace, params=params, raise_for_status=False
    ) as response:
        if response.status_code == _FORBIDDEN:
            return None
        response.raise_for_status()
        return list(response.json()["items"])


async def _delete(
    api: Api,
    version: str,
    url: str,
    *,
    namespace: str | None = None,
    params: Mapping[str, str] | None = None,
) -> None:
    async with api.call_api(
        "DELETE", version=version, url=url, namespace=namespace, params=dict(params or {})
    ):
        return


def _storage_class(item: Mapping[str, Any]) -> tuple[str, bool]:
    metadata = item["metadata"]
    return metadata["name"], (metadata.get("annotations") or {}).get(_DEFAULT_CLASS) == "true"


def _networks(nodes: Sequence[Mapping[str, Any]], front: str | None) -> Iterator[str]:
    found = [urlsplit(f"//{front}").hostname or ""] if front else []
    for node in nodes:
        found += (node.get("spec") or {}).get("podCIDRs") or []
        found += [
            address["address"]
            for address in (node.get("status") or {}).get("addresses") or []
            if address["type"] == "InternalIP"
        ]
    yield from (str(network) for network in map(ip_network, found) if network.version == _IPV4)


def _owner(namespaces: Sequence[Mapping[str, Any]], name: str) -> str | None:
    for item in namespaces:
        if item["metadata"]["name"] == name:
            return str((item["metadata"].get("labels") or {}).get(INSTANCE, ""))
    return None


def _front(services: Sequence[Mapping[str, Any]]) -> str | None:
    for item in services:
        if item["metadata"]["name"] == "kubernetes":
            return f"{item['spec']['clusterIP']}:{item['spec']['ports'][0]['port']}"
    return None


def _allocatable(nodes: Sequence[Mapping[str, Any]]) -> Room:
    usable = [node for node in nodes if not node["spec"].get("unschedulable")]
    return _sum(node["status"].get("allocatable", {}) for node in usable)


def _images(nodes: Sequence[Mapping[str, Any]]) -> frozenset[str] | None:
    lists = [node["status"].get("images", []) for node in nodes if not node["spec"].get("unschedulable")]
    if not lists or any(len(images) >= _LISTED_IMAGES for images in lists):
        return None
    return frozenset.intersection(
        *(frozenset(name for image in images for name in image.get("names") or ()) for images in lists)
    )


def _taken(pods: Sequence[Mapping[str, Any]], *, besides: str) -> Room:
    return _sum(
        container.get("resources", {}).get("requests", {})
        for pod in pods
        if pod["metadata"]["namespace"] != besides
        and pod["status"].get("phase") not in ("Succeeded", "Failed")
        for container in pod["spec"]["containers"]
    )


def _sum(amounts: Any) -> Room:
    known = list(amounts)
    cpu = sum(quantity(amount.get("cpu", "0")) for amount in known)
    memory = sum(quantity(amount.get("memory", "0")) for amount in known)
    return Room(cpu_millis=round(cpu * 1000), memory_mib=int(memory // _MIB))


def quantity(text: str) -> float:
    """A quantity in Kubernetes' notation, e.g. ``500m``, ``2Gi``.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    for suffix, factor in _UNITS.items():
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)
