"""A namespace of a cluster."""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from components.kubernetes.placing import Images
from stacks import leftovers
from stacks.cluster import ClusterAccess, ClusterUnreachableError
from stacks.fitness import check_fitness, closed_servers
from stacks.needs import NotEnoughError, needs_of
from stacks.pending import PendingCreate
from stacks.settings import EnvironmentSettings
from stacks.target_settings import Program
from toolchain import ToolchainError
from toolchain.cache import Cache
from toolchain.images import locate
from toolchain.images.containerd import Containerd
from toolchain.images.making import build_images, load_images
from toolchain.images.store import Store
from toolchain.progress import progress_for

_GONE_S = 120.0
"""How long volumes may take to follow their namespace."""
_PAUSE_S = 1.0
_WAY_S = 5.0


@dataclass(frozen=True, slots=True)
class ClusterPremises:
    """A namespace of a cluster; see :class:`stacks.premises.Premises`."""

    environment: str
    settings: EnvironmentSettings
    access: ClusterAccess

    @classmethod
    def of(cls, environment: str, settings: EnvironmentSettings) -> "ClusterPremises":
        """Where the settings say.

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
        """Look at the cluster's version, room, storage classes and namespace, and for a way to its Services."""
        needs, survey = needs_of(self.settings, is_new=True), self.access.survey()
        warnings = check_fitness(survey, needs, self.settings, self.environment)
        warnings += closed_servers(self.settings, _addresses_of)
        if survey.front is not None:
            _require_way(survey.front)
        return warnings

    def supply(self, *, bring: bool) -> None:
        """Build our own images where the settings name no registry; with `bring`, load them into this machine's
        node.
        """
        settings = self.settings.images
        programs = [program.value for program in _programs(self.settings)]
        ours = [name for name in programs if name not in settings.vendor]
        here = self.access.is_here and Containerd().is_open
        if ours and settings.registry is None:
            with progress_for() as progress:
                built = build_images(progress, ours)
                if here and bring:
                    load_images(progress, Store.of(Cache.default()), built, Containerd())
        missing = self._not_to_be_had(programs)
        if not missing and ours and settings.registry is None and not here:
            missing = self._not_on_nodes(ours)
        if missing:
            lines = "".join(f"\n  {line}" for line in missing)
            raise NotEnoughError(f"Images are missing:{lines}")

    def reach(self) -> None:
        """Ask the cluster for anything."""
        self.access.working()

    def settle(self, pending: list[PendingCreate]) -> list[PendingCreate]:
        """Delete each object that is there without Pulumi knowing it: data lies in volumes, which stay."""
        return [
            create for create in pending if create.is_of_the_cluster and self.access.discard(create.inputs)
        ]

    def clear(self, *, keep_data: bool) -> list[str]:
        """Delete the namespace, unless its data is kept, and what lies outside of it."""
        leftovers.remove_folder(self.settings.folder(self.environment), keep_data=False)
        gone = self.access.remove(self.environment, keep_data=keep_data)
        return [f"deleted what was still there: {name}" for name in gone]

    def left(self, *, keep_data: bool) -> list[str]:
        """Objects in the cluster, once it had time to follow."""
        deadline = time.monotonic() + _GONE_S
        while True:
            found = self.access.working() if keep_data else self.access.remains(self.environment)
            if not found or time.monotonic() > deadline:
                return [f"{name} is still in the cluster" for name in found]
            time.sleep(_PAUSE_S)

    def fate(self, *, keep_data: bool) -> str:
        """Where the data is, if it is anywhere."""
        namespace = self.access.namespace
        if keep_data:
            return f"no pod, no state; its volumes are kept in the namespace {namespace}"
        return f"no object in the cluster, no state; the namespace {namespace} is gone"

    def _not_to_be_had(self, names: Sequence[str]) -> list[str]:
        """What is wrong with the images that components will name."""
        settings = self.settings.images
        images = Images(registry=settings.registry, vendor=settings.vendor_args())
        problems = []
        for name in names:
            try:
                images.named(name)
            except ToolchainError as error:
                problems.append(str(error))
        return problems

    def _not_on_nodes(self, names: Sequence[str]) -> list[str]:
        """Which of our images pods would look for in vain."""
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


def _require_way(front: str) -> None:
    """Make sure that this machine reaches virtual addresses: Pulumi asks the services themselves for buckets, topics
    and users.
    """
    host, _, port = front.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_WAY_S).close()
    except OSError as error:
        raise ClusterUnreachableError(
            f"This machine does not reach the Services of the cluster: {front}, where each pod finds the API server, "
            f"does not answer ({error}). Run this on a node or in its network, or lead a way there: "
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
    elsewhere = {
        Program.POSTGRESQL: settings.database.external,
        Program.MINIO: settings.object_store.external,
        Program.KAFKA: settings.event_bus.external,
    }
    return [program for program in Program if elsewhere.get(program) is None]
