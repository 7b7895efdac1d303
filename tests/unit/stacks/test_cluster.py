"""What is seen of a cluster, and taken out of it, through an API server that keeps objects in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.kubernetes import placing
from stacks.cluster import ClusterAccess, ClusterUnreachableError
from stacks.needs import NotEnoughError
from stacks.pending import PendingCreate
from stacks.premises import kubernetes as premises
from stacks.premises.kubernetes import ClusterPremises
from stacks.validation import settings_from
from tests.cluster_api import ApiServer, api_server, kubeconfig
from toolchain.images import ImageMissingError

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
def stack(access: ClusterAccess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterPremises:
    monkeypatch.setenv("MARKETLAKE_HOME", str(tmp_path / "home"))
    place = {"kubeconfig": str(access.kubeconfig), "namespace": "lake"}
    config = {"marketlake:target": "kubernetes", "marketlake:kubernetes": place}
    return ClusterPremises.of("blue", settings_from(config, source="test"))


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
    assert seen.taken
    assert (seen.taken.cpu_millis, seen.taken.memory_mib) == (500, 1024)
    assert seen.has_metrics is False


def test_what_may_not_be_seen_is_not_guessed(server: ApiServer, access: ClusterAccess) -> None:
    server.forbidden = {CLASSES, "/api/v1/nodes"}
    seen = access.survey()
    assert seen.storage_classes is None
    assert seen.allocatable is None


def test_what_is_left_of_a_stack_is_named_and_removed(server: ApiServer, stack: ClusterPremises) -> None:
    server.add("/api/v1/namespaces/lake", labels=OURS)
    server.add(f"{SCHEDULING}/marketlake-blue-data", labels=OURS)
    server.add(f"{SCHEDULING}/of-others", labels={})
    server.add("/api/v1/persistentvolumes/v", labels=OURS, spec={"claimRef": {"namespace": "lake"}})
    named = ["namespace lake", "priorityclass marketlake-blue-data", "persistentvolume v"]
    assert stack.access.remains("blue") == named
    assert stack.clear(keep_data=False) == [f"deleted what was still there: {name}" for name in named[:2]]
    assert f"{SCHEDULING}/of-others" in server.objects
    del server.objects["/api/v1/persistentvolumes/v"]
    assert stack.left(keep_data=False) == []
    assert "is gone" in stack.fate(keep_data=False)


def test_kept_data_keeps_the_namespace_and_no_pod(
    server: ApiServer, stack: ClusterPremises, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(premises, "_GONE_S", 0.0)
    server.add("/api/v1/namespaces/lake", labels=OURS)
    assert stack.clear(keep_data=True) == []
    assert stack.left(keep_data=True) == []
    server.add("/api/v1/namespaces/lake/pods/p", labels=OURS)
    assert stack.left(keep_data=True) == ["pod p is still in the cluster"]
    assert "its volumes are kept" in stack.fate(keep_data=True)


def test_what_a_killed_command_created_makes_room(server: ApiServer, stack: ClusterPremises) -> None:
    def pending(name: str) -> PendingCreate:
        metadata = {"name": name, "namespace": "lake"}
        urn = f"urn:pulumi:blue::marketlake::kubernetes:core/v1:ConfigMap::{name}"
        return PendingCreate(urn=urn, inputs={"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    server.add("/api/v1/namespaces/lake/configmaps/there", labels=OURS)
    assert [create.name for create in stack.settle([pending("there"), pending("gone")])] == ["there"]
    assert "/api/v1/namespaces/lake/configmaps/there" not in server.objects


def test_a_stack_is_not_begun_without_its_images(
    stack: ClusterPremises, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locate(name: str, **_options: Any) -> None:
        if name == "kafka":
            raise ImageMissingError("the image kafka was not built yet: run `make images`")

    monkeypatch.setattr(placing, "locate", locate)
    with pytest.raises(NotEnoughError, match=r"Images are missing:\n  the image kafka .* run `make images`"):
        stack.check()
    monkeypatch.setattr(placing, "locate", lambda _name, **_options: None)
    assert isinstance(stack.check(), list)
    stack.reach()


def test_a_cluster_that_is_away_is_told_with_its_address(server: ApiServer, access: ClusterAccess) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(ClusterUnreachableError, match=rf"127.0.0.1:{server.server_port}.*make cluster"):
        access.survey()
