"""What is said of workloads that are not what Pulumi made of them; the API server keeps objects in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stacks.preflight import kubernetes as preflight
from stacks.preflight.host import HostPreflight
from stacks.preflight.kubernetes import KubernetesPreflight
from stacks.preflight.rollouts import RolloutError, Rollouts
from stacks.settings.validation import settings_from
from tests.cluster_api import ApiServer, api_server, kubeconfig

OURS = {"app.kubernetes.io/part-of": "marketlake", "app.kubernetes.io/instance": "blue"}
WORKLOADS = "/apis/apps/v1/namespaces/lake"
PODS = "/api/v1/namespaces/lake/pods"
READY = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}


def workload(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "generation": 2, "labels": OURS},
        "spec": {
            "replicas": 2,
            "progressDeadlineSeconds": 45,
            "selector": {"matchLabels": {"service": "web"}},
        },
        "status": {**READY, **status},
    }


def pod(name: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"service": "web", "x": "y"}}, "status": status}


@pytest.mark.parametrize(
    "status",
    [
        {"observedGeneration": 1},
        {"updatedReplicas": 1},
        {"readyReplicas": 1},
        {"replicas": 3},
        {"currentRevision": "a", "updateRevision": "b"},
    ],
)
def test_a_workload_is_finished_once_all_its_pods_are_new_and_ready(status: dict[str, Any]) -> None:
    assert Rollouts([workload()], []).unfinished == []
    assert Rollouts([workload(currentRevision="b", updateRevision="b")], []).unfinished == []
    (line,) = Rollouts([workload(), workload(**status)], []).unfinished
    assert line.startswith("web: ")


def test_a_workload_that_nobody_has_looked_at_is_not_finished() -> None:
    fresh = {**workload(), "status": {}}
    assert Rollouts([fresh], []).unfinished == ["web: 0 of 2 pods ready"]
    assert Rollouts([fresh], []).deadline_s == 45
    assert Rollouts([], []).deadline_s == 600


def test_pods_say_why_in_their_own_words() -> None:
    message = 'exec: "/opt/absent": no such file or directory'
    failing = {
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
        "lastState": {"terminated": {"reason": "StartError", "message": message}},
    }
    coming = {"state": {"waiting": {"reason": "ContainerCreating"}}, "lastState": {}}
    unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    pods = [
        pod("web-1", initContainerStatuses=[coming], containerStatuses=[failing]),
        pod("web-2", conditions=[unplaced, {"type": "Ready", "status": "False"}]),
        {"metadata": {"name": "other"}, "status": {"containerStatuses": [failing]}},
    ]
    (told,) = Rollouts([workload(readyReplicas=0)], pods).unfinished
    assert told.splitlines() == [
        "web: 0 of 2 pods ready",
        "    web-1: CrashLoopBackOff: back-off 10s",
        f"    web-1: StartError: {message}",
        "    web-2: Unschedulable: no node",
    ]


def test_that_kubernetes_gave_up_counts_only_of_the_newest_change() -> None:
    stuck = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    assert Rollouts([workload(conditions=stuck)], []).given_up
    assert not Rollouts([workload(conditions=stuck, observedGeneration=1)], []).given_up
    assert not Rollouts([workload()], []).given_up


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        yield running


@pytest.fixture
def stack(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubernetesPreflight:
    monkeypatch.setenv("MARKETLAKE_HOME", str(tmp_path / "home"))
    place = {"kubeconfig": str(kubeconfig(tmp_path, server.server_port)), "namespace": "lake"}
    config = {"marketlake:target": "kubernetes", "marketlake:kubernetes": place}
    return KubernetesPreflight.of("blue", settings_from(config, source="test"))


def test_up_waits_until_all_is_rolled_out(
    server: ApiServer, stack: KubernetesPreflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.objects[f"{WORKLOADS}/deployments/web"] = workload(observedGeneration=1)
    server.objects[f"{WORKLOADS}/statefulsets/web"] = workload()
    waits: list[float] = []

    def looked_at(seconds: float) -> None:
        waits.append(seconds)
        server.objects[f"{WORKLOADS}/deployments/web"] = workload()

    monkeypatch.setattr(preflight.time, "sleep", looked_at)
    stack.await_rollouts()
    assert len(waits) == 1


def test_what_makes_no_progress_is_told_with_the_pods_words(
    server: ApiServer, stack: KubernetesPreflight
) -> None:
    stuck = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    server.objects[f"{WORKLOADS}/deployments/web"] = workload(readyReplicas=1, conditions=stuck)
    waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
    server.objects[f"{PODS}/web-1"] = pod("web-1", containerStatuses=[waiting])
    with pytest.raises(
        RolloutError, match=r"(?s)web: 1 of 2 pods ready\n.*web-1: ErrImagePull: not found\n.*-n lake"
    ):
        stack.await_rollouts()


def test_what_takes_too_long_is_told(
    server: ApiServer, stack: KubernetesPreflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.objects[f"{WORKLOADS}/statefulsets/web"] = workload(updatedReplicas=1)
    monkeypatch.setattr(Rollouts, "deadline_s", 1)
    with pytest.raises(RolloutError, match=r"Not rolled out after \d s:\n  web: 2 of 2 pods ready"):
        stack.await_rollouts()


def test_of_another_stack_nothing_is_waited_for(server: ApiServer, stack: KubernetesPreflight) -> None:
    other = workload(readyReplicas=0)
    other["metadata"]["labels"] = {**OURS, "app.kubernetes.io/instance": "green"}
    server.objects[f"{WORKLOADS}/deployments/web"] = other
    stack.await_rollouts()


def test_a_host_has_nothing_to_wait_for() -> None:
    HostPreflight("blue", settings_from({}, source="test")).await_rollouts()
