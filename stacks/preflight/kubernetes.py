"""Preflight of the kubernetes target: a namespace of a cluster."""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from components.kubernetes.images import Images
from stacks.engine.state import PendingCreate
from stacks.preflight import leftovers
from stacks.preflight.capacity import CapacityError, requirements_of
from stacks.preflight.cluster import ClusterAccess, ClusterUnreachableError
from stacks.preflight.cluster_checks import check_cluster, closed_servers
from stacks.preflight.rollouts import RolloutError
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.targets import Program
from toolchain import ToolchainError
from toolchain.cache import Cache
from toolchain.images import locate
from toolchain.images.containerd import Containerd
from toolchain.images.making import build_images, load_images
from toolchain.images.store import Store
from toolchain.progress import progress_for

_DELETION_S = 120.0
"""How long volumes may take to be deleted after their namespace."""
_PAUSE_S = 1.0
_ROUTE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class KubernetesPreflight:
    """A namespace of a cluster; see :class:`stacks.preflight.Preflight`."""

    environment: str
    settings: EnvironmentSettings
    access: ClusterAccess

    @classmethod
    def of(cls, environment: str, settings: EnvironmentSettings) -> "KubernetesPreflight":
        """Return the preflight of the namespace that the settings name.

        Raises:
            KubeconfigMissingError: nothing opens the cluster.
        """
        kubernetes = settings.kubernetes
        access = ClusterAccess(
            kubeconfig=kubernetes.kubeconfig_file(),
            context=kubernetes.context,
            namespace=kubernetes.namespace_of(environment),
        )
        return cls(environment, settings, access)

    def check(self) -> list[str]:
        """Look at the cluster's version, room, storage classes and namespace, and for a route to its Services."""
        required, survey = requirements_of(self.settings, is_new=True), self.access.survey()
        warnings = check_cluster(survey, required, self.settings, self.environment)
        warnings += closed_servers(self.settings, _addresses_of)
        if survey.api_address is not None:
            _require_route(survey.api_address)
        return warnings

    def supply(self, *, load: bool) -> None:
        """Build our own images where the settings name no registry; with `load`, load them into this machine's
        node.
        """
        settings = self.settings.images
        programs = [program.value for program in _programs(self.settings)]
        ours = [name for name in programs if name not in settings.vendor]
        here = self.access.is_here and Containerd().is_open
        if ours and settings.registry is None:
            with progress_for() as progress:
                built = build_images(progress, ours)
                if here and load:
                    load_images(progress, Store.of(Cache.default()), built, Containerd())
        missing = self._unavailable(programs)
        if not missing and ours and settings.registry is None and not here:
            missing = self._missing_on_nodes(ours)
        if missing:
            lines = "".join(f"\n  {line}" for line in missing)
            raise CapacityError(f"Images are missing:{lines}")

    def reach(self) -> None:
        """Ask the cluster for its pods."""
        self.access.pods()

    def await_rollouts(self) -> None:
        """Wait for every workload, as long as the slowest of them may take."""
        began = time.monotonic()
        while (seen := self.access.rollouts(self.environment)).unfinished:
            waited = time.monotonic() - began
            if seen.given_up or waited > seen.deadline_s:
                lines = "".join(f"\n  {line}" for line in seen.unfinished)
                raise RolloutError(
                    f"Not rolled out after {waited:.0f} s:{lines}\nOnce the settings are right, the same command goes "
                    f"on from there; `kubectl -n {self.access.namespace} describe pods` tells more."
                )
            time.sleep(_PAUSE_S)

    def settle(self, pending: list[PendingCreate]) -> list[PendingCreate]:
        """Delete each object that exists and that Pulumi does not know: data lies in volumes, which stay."""
        return [
            create for create in pending if create.is_of_the_cluster and self.access.discard(create.inputs)
        ]

    def remove_leftovers(self, *, keep_data: bool) -> list[str]:
        """Delete the namespace, unless its data is kept, and what lies outside of it."""
        leftovers.remove_folder(self.settings.folder(self.environment), keep_data=False)
        gone = self.access.remove(self.environment, keep_data=keep_data)
        return [f"deleted what was still there: {name}" for name in gone]

    def leftovers(self, *, keep_data: bool) -> list[str]:
        """Return objects in the cluster, once it had time to delete them."""
        deadline = time.monotonic() + _DELETION_S
        while True:
            found = self.access.pods() if keep_data else self.access.remains(self.environment)
            if not found or time.monotonic() > deadline:
                return [f"{name} is still in the cluster" for name in found]
            time.sleep(_PAUSE_S)

    def after_removal(self, *, keep_data: bool) -> str:
        """Return where the data is, if it is kept."""
        namespace = self.access.namespace
        if keep_data:
            return f"no pod, no state; its volumes are kept in the namespace {namespace}"
        return f"no object in the cluster, no state; the namespace {namespace} is gone"

    def _unavailable(self, names: Sequence[str]) -> list[str]:
        """Return what is wrong with the images that components will name."""
        settings = self.settings.images
        images = Images(registry=settings.registry, vendor=settings.vendor_args())
        problems = []
        for name in names:
            try:
                images.named(name)
            except ToolchainError as error:
                problems.append(str(error))
        return problems

    def _missing_on_nodes(self, names: Sequence[str]) -> list[str]:
        """Return which of our images are missing on the nodes."""
        there = self.access.images()
        if there is None:
            return []
        return [
            f"the image {image.reference} is not on every node. Where this machine is the node, `make images` as root "
            "puts it there; `ctr images import` or `kind load image-archive` take what `python -m toolchain.images "
            "path` names; or push it with `make images REGISTRY=…`, and name that in marketlake:images.registry"
            for image in map(locate, names)
            if image.reference not in there
        ]


def _require_route(api_address: str) -> None:
    """Raise if this machine does not reach virtual addresses: Pulumi asks the services themselves for buckets, topics
    and users.
    """
    host, _, port = api_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ROUTE_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterUnreachableError(
            f"This machine does not reach the Services of the cluster: {api_address}, where each pod finds the API "
            f"server, does not answer ({error}). Run this on a node or in its network, or route there: "
            "docs/cluster.md#another-cluster has those for kind, k3s and EKS."
        ) from None


def _addresses_of(host: str) -> list[str]:
    """The IPv4 addresses that a name has here; none if it has none."""
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(address[0]) for *_, address in found})


def _programs(settings: EnvironmentSettings) -> list[Program]:
    """The programs that run in the cluster."""
    external = {
        Program.POSTGRESQL: settings.database.external,
        Program.MINIO: settings.object_store.external,
        Program.KAFKA: settings.event_bus.external,
    }
    return [program for program in Program if external.get(program) is None]
