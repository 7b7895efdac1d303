"""Access to a Kubernetes cluster from outside of Pulumi: what a stack needs there, and what is left of one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import psutil
import yaml
from marketlake.infrastructure.kubernetes import ClusterApiError

from components.kubernetes.labels import INSTANCE, PART_OF, PLATFORM, STACK
from stacks.preflight.rollouts import Rollouts
from stacks.preflight.survey import (
    Survey,
    allocatable,
    api_address,
    images_on_every_node,
    networks_of,
    owner_of,
    requested,
    storage_class,
)

_CONNECT_S = 5.0
"""How long a cluster may take to answer at first."""
_ASK_S = 30.0
_DISCARD_S = 25.0
_PAUSE_S = 0.5
_METRICS = "v1beta1.metrics.k8s.io"
_FORBIDDEN = 403

Result = TypeVar("Result")
Api = Any
"""kr8s' client, which has no types."""


class ClusterUnreachableError(Exception):
    """A cluster does not answer; the message says where, why, and what to do."""


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
            address = api_address(await _list(api, "v1", "services", namespace="default") or [])
            return Survey(
                version=await _version(api),
                storage_classes=None if classes is None else dict(map(storage_class, classes)),
                owner=owner_of(namespaces or [], self.namespace),
                allocatable=None if nodes is None else allocatable(nodes),
                requested=None if pods is None else requested(pods, outside=self.namespace),
                has_metrics=None
                if services is None
                else any(item["metadata"]["name"] == _METRICS for item in services),
                api_address=address,
                networks=frozenset(networks_of(nodes or [], address)),
            )

        return self._ask(look)

    def images(self) -> frozenset[str] | None:
        """Names of the images that every node has; None where that cannot be seen, or nodes do not list all.

        Raises:
            ClusterUnreachableError: the cluster does not answer.
        """

        async def look(api: Api) -> frozenset[str] | None:
            return images_on_every_node(await _list(api, "v1", "nodes") or [])

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
            found = [f"namespace {self.namespace}"] if owner_of(namespaces, self.namespace) == stack else []
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

    def pods(self) -> list[str]:
        """Return the pods in the namespace.

        Raises:
            ClusterUnreachableError: the cluster does not answer.
        """

        async def look(api: Api) -> list[str]:
            pods = await _list(api, "v1", "pods", namespace=self.namespace) or []
            return [f"pod {item['metadata']['name']}" for item in pods]

        return self._ask(look)

    def rollouts(self, stack: str) -> Rollouts:
        """Look how far the stack's workloads are.

        Raises:
            ClusterUnreachableError: the cluster does not answer.
        """

        async def look(api: Api) -> Rollouts:
            place = {"namespace": self.namespace, "labels": _labels(stack)}
            deployments = await _list(api, "apps/v1", "deployments", **place)
            stateful = await _list(api, "apps/v1", "statefulsets", **place)
            workloads = [*(deployments or []), *(stateful or [])]
            return Rollouts(workloads, await _list(api, "v1", "pods", namespace=self.namespace) or [])

        return self._ask(look)

    def remove(self, stack: str, *, keep_data: bool) -> list[str]:
        """Delete what there is of a stack whose state is gone, and tell what; it is not waited for.

        Raises:
            ClusterUnreachableError: the cluster does not answer.
        """

        async def delete(api: Api) -> list[str]:
            gone = []
            namespaces = await _list(api, "v1", "namespaces") or []
            if owner_of(namespaces, self.namespace) == stack and not keep_data:
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
        except (ClusterApiError, OSError, httpx.HTTPError, ValueError) as error:
            reason = str(error).partition("\n")[0]
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
        # takes a second, and a host needs none of it
        from marketlake.infrastructure.kubernetes.client import connect

        api = await connect(
            kubeconfig=str(self.kubeconfig),
            context=self.context,
            connect_timeout_s=_CONNECT_S,
            timeout_s=_ASK_S,
        )
        return await action(api)


def _is_of_the_client(error: Exception) -> bool:
    return type(error).__module__.startswith("kr8s.")


def _labels(stack: str) -> str:
    return f"{PART_OF}={PLATFORM},{INSTANCE}={stack}"


async def _version(api: Api) -> tuple[int, int]:
    answer = await api.version()
    return int(answer["major"]), int(answer["minor"].rstrip("+"))


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
