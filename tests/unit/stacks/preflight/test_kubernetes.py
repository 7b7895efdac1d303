"""What is seen of a cluster, and taken out of it, through an API server that keeps objects in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.kubernetes import images
from stacks.engine.state import PendingCreate
from stacks.preflight import kubernetes as preflight
from stacks.preflight import preflight_of
from stacks.preflight.capacity import CapacityError
from stacks.preflight.cluster import ClusterAccess, ClusterUnreachableError
from stacks.preflight.host import HostPreflight
from stacks.preflight.kubernetes import KubernetesPreflight
from stacks.settings.validation import settings_from
from tests.cluster_api import ApiServer, api_server, kubeconfig
from toolchain.images import Image, ImageMissingError

OURS = {"app.kubernetes.io/part-of": "marketlake", "app.kubernetes.io/instance": "blue"}
CLASSES, SCHEDULING = "/apis/storage.k8s.io/v1/storageclasses", "/apis/scheduling.k8s.io/v1/priorityclasses"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        node = {"allocatable": {"cpu": "8", "memory": "32Gi"}}
        running.objects["/api/v1/nodes/n"] = {"metadata": {"name": "n"}, "spec": {}, "status": node}
        usual = {"storageclass.kubernetes.io/is-default-class": "true"}
        running.objects[f"{CLASSES}/local"] = {"metadata": {"name": "local", "annotations": usual}}
        yield running


@pytest.fixture
def access(server: ApiServer, tmp_path: Path) -> ClusterAccess:
    return ClusterAccess(kubeconfig=kubeconfig(tmp_path, server.server_port), context=None, namespace="lake")


@pytest.fixture
def stack(access: ClusterAccess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubernetesPreflight:
    monkeypatch.setenv("MARKETLAKE_HOME", str(tmp_path / "home"))
    place = {"kubeconfig": str(access.kubeconfig), "namespace": "lake"}
    config = {"marketlake:target": "kubernetes", "marketlake:kubernetes": place}
    return KubernetesPreflight.of("blue", settings_from(config, source="test"))


def test_a_kubernetes_that_is_younger_than_the_client_is_no_news(
    server: ApiServer, access: ClusterAccess, recwarn: pytest.WarningsRecorder
) -> None:
    server.minor = 99
    assert access.survey().version == (1, 99)
    assert [str(each.message) for each in recwarn if issubclass(each.category, UserWarning)] == []


def test_a_survey_tells_version_room_classes_and_whose_the_namespace_is(
    server: ApiServer, access: ClusterAccess
) -> None:
    server.add("/api/v1/namespaces/lake", labels=OURS)
    requests = {"requests": {"cpu": "500m", "memory": "1Gi"}}
    server.add(
        "/api/v1/pods/p",
        labels=OURS,
        spec={"containers": [{"resources": requests}]},
        status={"phase": "Running"},
    )
    server.objects["/api/v1/pods/p"]["metadata"]["namespace"] = "other"
    seen = access.survey()
    assert (seen.version, seen.storage_classes, seen.owner) == ((1, 33), {"local": True}, "blue")
    assert seen.allocatable
    assert (seen.allocatable.cpu_millis, seen.allocatable.memory_mib) == (8000, 32768)
    assert seen.requested
    assert (seen.requested.cpu_millis, seen.requested.memory_mib) == (500, 1024)
    assert seen.has_metrics is False
    assert access.images() == frozenset()


def test_what_may_not_be_seen_is_not_guessed(server: ApiServer, access: ClusterAccess) -> None:
    server.forbidden = {CLASSES, "/api/v1/nodes"}
    seen = access.survey()
    assert seen.storage_classes is None
    assert seen.allocatable is None
    assert access.images() is None


def test_what_is_left_of_a_stack_is_named_and_removed(server: ApiServer, stack: KubernetesPreflight) -> None:
    server.add("/api/v1/namespaces/lake", labels=OURS)
    server.add(f"{SCHEDULING}/marketlake-blue-data", labels=OURS)
    server.add(f"{SCHEDULING}/of-others", labels={})
    server.add("/api/v1/persistentvolumes/v", labels=OURS, spec={"claimRef": {"namespace": "lake"}})
    named = ["namespace lake", "priorityclass marketlake-blue-data", "persistentvolume v"]
    assert stack.access.remains("blue") == named
    assert stack.remove_leftovers(keep_data=False) == [
        f"deleted what was still there: {name}" for name in named[:2]
    ]
    assert f"{SCHEDULING}/of-others" in server.objects
    del server.objects["/api/v1/persistentvolumes/v"]
    assert stack.leftovers(keep_data=False) == []
    assert "is gone" in stack.after_removal(keep_data=False)


def test_kept_data_keeps_the_namespace_and_no_pod(
    server: ApiServer, stack: KubernetesPreflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_DELETION_S", 0.0)
    server.add("/api/v1/namespaces/lake", labels=OURS)
    jobs = "/apis/batch/v1/namespaces/lake/jobs"
    of_prefect = {"app.kubernetes.io/part-of": "prefect", "app.kubernetes.io/instance": "a-run"}
    server.add(f"{jobs}/run", labels={**of_prefect, "marketlake/stack": "blue"})
    server.add(f"{jobs}/of-others", labels=of_prefect)
    assert stack.remove_leftovers(keep_data=True) == ["deleted what was still there: job run"]
    assert f"{jobs}/of-others" in server.objects
    assert stack.leftovers(keep_data=True) == []
    server.add("/api/v1/namespaces/lake/pods/p", labels=OURS)
    assert stack.leftovers(keep_data=True) == ["pod p is still in the cluster"]
    assert "its volumes are kept" in stack.after_removal(keep_data=True)


def test_what_a_killed_command_created_makes_room(server: ApiServer, stack: KubernetesPreflight) -> None:
    def pending(name: str) -> PendingCreate:
        metadata = {"name": name, "namespace": "lake"}
        urn = f"urn:pulumi:blue::marketlake::kubernetes:core/v1:ConfigMap::{name}"
        return PendingCreate(urn=urn, inputs={"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    server.add("/api/v1/namespaces/lake/configmaps/there", labels=OURS)
    assert [create.name for create in stack.settle([pending("there"), pending("gone")])] == ["there"]
    assert "/api/v1/namespaces/lake/configmaps/there" not in server.objects


class Supply:
    """What building and loading images were asked for."""

    def __init__(self) -> None:
        self.built: list[list[str]] = []
        self.loaded: list[list[str]] = []


@pytest.fixture
def supply(monkeypatch: pytest.MonkeyPatch) -> Supply:
    """Images that are there once they are built; this machine is a node."""
    supply = Supply()

    def build(_progress: object, names: list[str]) -> dict[str, str]:
        supply.built.append(names)
        return dict.fromkeys(names, "built")

    def load(_progress: object, _store: object, built: dict[str, str], _node: object) -> list[str]:
        supply.loaded.append(list(built))
        return list(built)

    def find(name: str, **_options: Any) -> Image:
        return Image(
            name=name, version="1", reference=f"here/{name}@sha256:1", digest="", executables={}, roots={}
        )

    monkeypatch.setattr(preflight, "build_images", build)
    monkeypatch.setattr(preflight, "load_images", load)
    monkeypatch.setattr(preflight.Containerd, "is_open", property(lambda _self: True))
    monkeypatch.setattr(preflight, "locate", find)
    monkeypatch.setattr(images, "locate", find)
    return supply


def configured(stack: KubernetesPreflight, **images: Any) -> KubernetesPreflight:
    place = {"kubeconfig": str(stack.access.kubeconfig), "namespace": "lake"}
    config = {"marketlake:target": "kubernetes", "marketlake:kubernetes": place, "marketlake:images": images}
    return KubernetesPreflight.of("blue", settings_from(config, source="test"))


def test_our_images_are_built_and_brought_to_the_node_that_this_machine_is(
    stack: KubernetesPreflight, supply: Supply
) -> None:
    vendor = {"kafka": {"reference": f"else/kafka@sha256:{'0' * 64}"}}
    stack = configured(stack, vendor=vendor)
    stack.supply(load=False)
    assert supply.loaded == []
    stack.supply(load=True)
    assert supply.built[0] == supply.built[1] == supply.loaded[0]
    assert {"marketlake", "minio", "postgresql"} < set(supply.loaded[0])
    assert "kafka" not in supply.loaded[0]


def test_images_in_a_registry_are_neither_built_nor_loaded(
    stack: KubernetesPreflight, supply: Supply
) -> None:
    configured(stack, registry="registry.example.com/lake").supply(load=True)
    assert (supply.built, supply.loaded) == ([], [])


def test_images_that_the_nodes_lack_are_told_before_anything_is_created(
    server: ApiServer, stack: KubernetesPreflight, supply: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.Containerd, "is_open", property(lambda _self: False))
    everything = [f"here/{program.value}@sha256:1" for program in preflight.Program]
    status = server.objects["/api/v1/nodes/n"]["status"]
    status["images"] = [{"names": [name]} for name in everything[1:]]
    with pytest.raises(CapacityError, match=r"here/marketlake@sha256:1 is not on every node.*make images"):
        stack.supply(load=True)
    assert supply.loaded == []
    status["images"].append({"names": everything[:1]})
    stack.supply(load=True)
    status["images"] = [{"names": ["x"]}] * 50
    stack.supply(load=True)  # the kubelet names no more than that: nobody can tell


def test_a_cluster_elsewhere_gets_no_image_by_way_of_this_machine(
    stack: KubernetesPreflight, supply: Supply
) -> None:
    elsewhere = stack.access.kubeconfig.read_text().replace("127.0.0.1", "192.0.2.1")
    stack.access.kubeconfig.write_text(elsewhere)
    assert not stack.access.is_here
    with pytest.raises(ClusterUnreachableError):
        stack.supply(load=True)
    assert supply.loaded == []


def test_a_stack_is_not_begun_without_its_images(
    stack: KubernetesPreflight, supply: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locate(name: str, **_options: Any) -> None:
        if name == "kafka":
            raise ImageMissingError("the image kafka was not pushed: run `make images`")

    monkeypatch.setattr(images, "locate", locate)
    with pytest.raises(CapacityError, match=r"Images are missing:\n  the image kafka .* run `make images`"):
        configured(stack, registry="registry.example.com/lake").supply(load=True)


def test_a_machine_without_a_way_to_services_is_told_so_and_where_to_find_one(
    server: ApiServer, stack: KubernetesPreflight
) -> None:
    def answers_at(port: int) -> None:
        spec = {"clusterIP": "127.0.0.1", "ports": [{"port": port}]}
        server.add("/api/v1/namespaces/default/services/kubernetes", labels={}, spec=spec)

    answers_at(server.server_port)
    stack.check()
    answers_at(9)
    with pytest.raises(
        ClusterUnreachableError, match=r"Services of the cluster: 127\.0\.0\.1:9.*another-cluster"
    ):
        stack.check()


def test_the_target_decides_where_a_stack_stands(stack: KubernetesPreflight) -> None:
    assert isinstance(preflight_of("blue", stack.settings), KubernetesPreflight)
    here = settings_from({"marketlake:target": "host"}, source="test")
    assert isinstance(preflight_of("blue", here), HostPreflight)
