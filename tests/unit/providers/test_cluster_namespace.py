"""Namespaces against an API server that keeps them in memory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.providers.base import DRIFT, ResourceError, UnreachableError
from components.providers.cluster_namespace import ClusterNamespaceInputs, ClusterNamespaceProvider
from components.supervision.layout import KEEP_DATA_VARIABLE
from tests.cluster_api import ApiServer, api_server, kubeconfig

LAKE = "/api/v1/namespaces/lake"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        yield running


@pytest.fixture
def declared(server: ApiServer, tmp_path: Path) -> ClusterNamespaceInputs:
    path = kubeconfig(tmp_path, server.server_port)
    return ClusterNamespaceInputs(version="1", namespace="lake", stack="blue", kubeconfig=str(path))


def test_a_namespace_is_made_seen_and_removed(server: ApiServer, declared: ClusterNamespaceInputs) -> None:
    provider = ClusterNamespaceProvider()
    assert provider.observe(declared) is None
    provider.apply(declared)
    labels = server.objects[LAKE]["metadata"]["labels"]
    assert labels["app.kubernetes.io/instance"] == "blue"
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert provider.observe(declared) == {}
    provider.remove(declared)
    assert server.objects == {}
    provider.remove(declared)


def test_our_own_namespace_is_adopted_and_mended(server: ApiServer, declared: ClusterNamespaceInputs) -> None:
    server.add(LAKE, labels={"app.kubernetes.io/instance": "blue"})
    provider = ClusterNamespaceProvider()
    drifted = provider.observe(declared)
    assert drifted is not None, "forgotten, it would outlive the stack"
    assert "pod-security.kubernetes.io/enforce" in drifted[DRIFT]
    provider.apply(declared)
    assert provider.observe(declared) == {}


@pytest.mark.parametrize(
    ("labels", "whose"),
    [({}, "is not of this platform"), ({"app.kubernetes.io/instance": "red"}, "belongs to the stack 'red'")],
)
def test_a_foreign_namespace_is_left_alone(
    server: ApiServer, declared: ClusterNamespaceInputs, labels: dict[str, str], whose: str
) -> None:
    server.add(LAKE, labels=dict(labels))
    with pytest.raises(ResourceError, match=f"exists and {whose}.*kubectl label"):
        ClusterNamespaceProvider().apply(declared)
    assert ClusterNamespaceProvider().observe(declared) is None
    ClusterNamespaceProvider().remove(declared)
    assert server.objects[LAKE]["metadata"]["labels"] == labels


def test_data_that_is_to_be_kept_keeps_its_namespace(
    server: ApiServer, declared: ClusterNamespaceInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ClusterNamespaceProvider()
    provider.apply(declared)
    monkeypatch.setenv(KEEP_DATA_VARIABLE, "keep")
    provider.remove(declared)
    assert LAKE in server.objects


def test_a_refusal_says_what_the_cluster_said(server: ApiServer, declared: ClusterNamespaceInputs) -> None:
    server.forbidden.add(LAKE)
    with pytest.raises(ResourceError, match="refuses"):
        ClusterNamespaceProvider().apply(declared)


def test_a_cluster_that_is_away_is_unreachable(server: ApiServer, declared: ClusterNamespaceInputs) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(UnreachableError, match="does not answer"):
        ClusterNamespaceProvider().observe(declared)


def test_a_kubernetes_that_is_younger_than_the_client_is_no_news(
    server: ApiServer, declared: ClusterNamespaceInputs, recwarn: pytest.WarningsRecorder
) -> None:
    server.minor = 99
    ClusterNamespaceProvider().apply(declared)
    assert LAKE in server.objects
    assert [str(each.message) for each in recwarn if issubclass(each.category, UserWarning)] == []
