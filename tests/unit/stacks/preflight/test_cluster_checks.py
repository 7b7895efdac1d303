"""Whether a cluster fits a stack, and what a killed command left in its state."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stacks.engine.state import pending_creates
from stacks.preflight.capacity import CapacityError, requirements_of
from stacks.preflight.cluster import ClusterAccess, ClusterUnreachableError
from stacks.preflight.cluster_checks import check_cluster, closed_servers
from stacks.preflight.survey import Room, Survey
from stacks.settings.validation import settings_from

AMPLE = Survey(
    version=(1, 36),
    storage_classes={"local": True, "fast": False},
    owner=None,
    allocatable=Room(cpu_millis=64_000, memory_mib=256_000),
    requested=Room(cpu_millis=100, memory_mib=100),
    has_metrics=True,
)


def checked(survey: Survey, **settings: Any) -> list[str]:
    known = settings_from({"target": "kubernetes", **settings}, source="test")
    return check_cluster(survey, requirements_of(known, is_new=True), known, "blue")


def test_a_cluster_with_everything_is_taken_without_a_word() -> None:
    assert checked(AMPLE, collection={"maxWorkers": 4}) == []
    assert checked(replace(AMPLE, owner="blue"), database={"storageClass": "fast"}) == []


def test_a_public_network_of_the_cluster_has_to_be_closed_where_servers_outside_are_called() -> None:
    private = replace(AMPLE, networks=frozenset({"10.96.0.1/32", "10.244.0.0/24", "192.0.2.10/32"}))
    public = replace(AMPLE, networks=private.networks | {"8.8.8.8/32"})
    outward = {"venue": {"standIn": False}}
    assert checked(private, **outward) == []
    assert checked(public) == [], "nobody has a way out"
    assert checked(public, venue={"endpoint": "https://1.2.3.4"}) == [], "the way leads to one address"
    with pytest.raises(
        CapacityError, match=r"network: 8.8.8.8/32 is the cluster's and public.*closedNetworks"
    ):
        checked(public, **outward)
    assert checked(public, kubernetes={"closedNetworks": ["8.8.8.0/24"]}, **outward) == []


def test_a_server_whose_name_leads_where_no_pod_is_let_is_told_with_what_to_do() -> None:
    known = {"db.example.com": ["10.1.2.3"], "kafka.example.com": ["8.8.8.8"]}

    def told(**kubernetes: Any) -> list[str]:
        settings = settings_from(
            {
                "target": "kubernetes",
                "kubernetes": kubernetes,
                "database": {"external": {"host": "db.example.com"}},
                "eventBus": {"external": {"bootstrapServers": "kafka.example.com:9092", "username": "u"}},
                "venue": {"endpoint": "http://10.9.9.9:9000"},
            },
            source="test",
        )
        return list(closed_servers(settings, lambda host: known.get(host, [])))

    (warning,) = told()
    assert "db.example.com is 10.1.2.3 from here" in warning
    assert "10.1.2.3/32" in warning
    assert "marketlake:kubernetes.externalNetworks" in warning
    assert told(externalNetworks=["10.1.2.0/28", "fd00::/8"]) == []
    assert len(told(externalNetworks=["10.1.2.0/28"], closedNetworks=["8.8.8.0/24"])) == 1


def test_what_may_not_be_seen_is_not_missed() -> None:
    blind = replace(AMPLE, storage_classes=None, allocatable=None, requested=None, has_metrics=None)
    assert checked(blind, collection={"maxWorkers": 4}) == []


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"version": (1, 29)}, {}, "version: it is Kubernetes 1.29, and 1.30 is the oldest"),
        ({"owner": "red"}, {}, "namespace: marketlake-blue exists and belongs to the stack 'red'"),
        ({"owner": ""}, {}, "namespace: marketlake-blue exists and is not of this platform"),
        ({"storage_classes": {"fast": False}}, {}, "storage: it has no default storage class"),
        ({}, {"eventBus": {"storageClass": "slow"}}, "eventBus.storageClass is 'slow', and there is no such"),
        ({"allocatable": Room(cpu_millis=64_000, memory_mib=2000)}, {}, "memory: 1900 MiB of the nodes"),
        ({"allocatable": Room(cpu_millis=500, memory_mib=256_000)}, {}, "CPU: 400 thousandths of a core"),
    ],
)
def test_what_a_cluster_lacks_is_named_before_anything_is_created(
    changes: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(CapacityError) as caught:
        checked(replace(AMPLE, **changes), **settings)
    assert message in str(caught.value)


def test_a_cluster_that_measures_nothing_is_warned_of_where_it_should_scale() -> None:
    (warning,) = checked(replace(AMPLE, has_metrics=False), collection={"maxWorkers": 4})
    assert "no metrics API" in warning
    assert checked(replace(AMPLE, has_metrics=False)) == []


def test_a_kubeconfig_without_the_context_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("{current-context: a, contexts: [], clusters: []}")
    with pytest.raises(ClusterUnreachableError, match="knows no cluster of the context"):
        _ = ClusterAccess(kubeconfig=path, context="b", namespace="x").server


def test_what_a_killed_command_began_to_create_is_read_from_the_state(tmp_path: Path) -> None:
    def operation(kind: str, name: str, inputs: dict[str, Any], what: str = "creating") -> dict[str, Any]:
        return {
            "type": what,
            "resource": {"urn": f"urn:pulumi:blue::marketlake::{kind}::{name}", "inputs": inputs},
        }

    metadata = {"name": "n", "namespace": "lake"}
    state = tmp_path / "blue.json"
    assert pending_creates(state) == []
    operations = [
        operation(
            "parent$kubernetes:apps/v1:Deployment", "a", {"apiVersion": "apps/v1", "metadata": metadata}
        ),
        operation("kubernetes:core/v1:Namespace", "b", {"apiVersion": "v1", "metadata": {"name": "m"}}),
        operation("pulumi-python:dynamic/marketlake:Bucket", "c", {}),
        operation("kubernetes:core/v1:Secret", "d", {}, "deleting"),
    ]
    state.write_text(json.dumps({"checkpoint": {"latest": {"pending_operations": operations}}}))
    creates = pending_creates(state)
    assert [(create.name, create.is_of_the_cluster) for create in creates] == [
        ("a", True), ("b", True), ("c", False),
    ]  # fmt: skip
