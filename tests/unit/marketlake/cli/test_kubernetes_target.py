"""Services of a cluster, from what its API shows of them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from marketlake.cli import status
from marketlake.cli.exit_codes import PlatformUnreachableError
from marketlake.cli.kubernetes_target import KubernetesTarget
from marketlake.settings import Cluster, HealthKind, ServiceInfo

from tests.cluster_api import kubeconfig

CONTROL = "kubernetes:lake/deployment/worker"


def deployment(replicas: int = 1) -> dict[str, Any]:
    return {"kind": "Deployment", "metadata": {"name": "worker"}, "spec": {"replicas": replicas}}


def pod(
    name: str, state: dict[str, Any], *, ready: bool = False, restarts: int = 0, **changes: Any
) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}, *changes.pop("conditions", [])]
    container = {"name": "worker", "state": state, "restartCount": restarts, **changes}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "lake", "labels": {"marketlake/service": "worker"}},
        "status": {"conditions": conditions, "containerStatuses": [container]},
    }


RUNNING = {"running": {"startedAt": "2026-11-24T16:00:00Z"}}
MEASURED = {
    "metadata": {"name": "a"},
    "containers": [{"usage": {"memory": "2Mi"}}, {"usage": {"memory": "1Ki"}}],
}


def test_a_service_that_is_well_shows_its_pods_memory_and_restarts() -> None:
    pods = [pod("a", RUNNING, ready=True, restarts=2), pod("b", RUNNING, ready=True)]
    seen = KubernetesTarget("lake", [deployment(2)], pods, [MEASURED]).status(CONTROL)
    assert (seen.running, seen.trouble, seen.restarts) == (2, None, 2)
    assert seen.memory_bytes == 2 * 2**20 + 1024
    assert seen.uptime_s is not None


@pytest.mark.parametrize(
    ("sick", "told"),
    [
        (
            pod("a", {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}),
            "0 of 1 ready: ErrImagePull (worker): no such image",
        ),
        (
            pod(
                "a",
                {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                lastState={"terminated": {"reason": "Error", "exitCode": 3, "message": "first\nno disk\n"}},
            ),
            "0 of 1 ready: CrashLoopBackOff (worker): Error, exit code 3, no disk",
        ),
        (
            pod("a", {"terminated": {"reason": "OOMKilled", "exitCode": 137}}),
            "0 of 1 ready: OOMKilled (worker): OOMKilled, exit code 137",
        ),
        (
            pod(
                "a",
                {},
                conditions=[
                    {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: too little memory"}
                ],
            ),
            "0 of 1 ready: pending: 0/1 nodes: too little memory",
        ),
        (pod("a", {"waiting": {"reason": "ContainerCreating"}}), "0 of 1 ready"),
    ],
)
def test_a_pod_that_does_not_run_says_why_in_its_own_words(sick: dict[str, Any], told: str) -> None:
    assert KubernetesTarget("lake", [deployment()], [sick], []).status(CONTROL).trouble == told


def test_a_workload_that_is_gone_is_told() -> None:
    assert (
        KubernetesTarget("lake", [], [], []).status(CONTROL).trouble == "the cluster has no deployment worker"
    )


def test_a_server_that_somebody_else_runs_shows_its_health_alone() -> None:
    service = ServiceInfo(name="theirs", version="1", health=HealthKind.TCP, target="127.0.0.1:1")
    seen = status.report_of(service, KubernetesTarget("lake", [], [], []))
    assert (seen.state, seen.restarts) == ("no answer: connection refused", None)


@contextmanager
def api_server(asked: list[str], tmp_path: Path, *, measured: bool = True) -> Iterator[Cluster]:
    item = {name: part for name, part in deployment().items() if name != "kind"}  # as in the API's lists
    answers: dict[str, dict[str, Any]] = {
        "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
        "/apis/apps/v1/namespaces/lake/deployments": {"items": [item]},
        "/apis/apps/v1/namespaces/lake/statefulsets": {"items": []},
        "/api/v1/namespaces/lake/pods": {"items": [pod("a", RUNNING, ready=True)]},
    }
    if measured:
        answers["/apis/metrics.k8s.io/v1beta1/namespaces/lake/pods"] = {"items": [MEASURED]}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].rstrip("/")
            asked.append(path)
            body = json.dumps(answers.get(path, {})).encode()
            self.send_response(200 if path in answers else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Cluster(kubeconfig=str(kubeconfig(tmp_path, server.server_port)), namespace="lake")
        server.shutdown()


def test_one_report_of_the_api_serves_all_services(tmp_path: Path) -> None:
    asked: list[str] = []
    with api_server(asked, tmp_path) as cluster:
        seen = KubernetesTarget.of(cluster)
        before = len(asked)
        for _ in range(20):
            assert seen.status(CONTROL).memory_bytes == 2 * 2**20 + 1024
    assert len(asked) == before
    assert asked.count("/api/v1/namespaces/lake/pods") == 1
    assert "kubectl -n lake logs" in seen.hint


def test_a_cluster_that_does_not_answer_is_told_with_what_to_report_of(tmp_path: Path) -> None:
    with pytest.raises(
        PlatformUnreachableError, match=r"does not show the namespace 'lake'.*kubectl get nodes"
    ):
        KubernetesTarget.of(Cluster(kubeconfig=str(kubeconfig(tmp_path, 1)), namespace="lake"))


def test_a_cluster_that_measures_nothing_shows_the_rest(tmp_path: Path) -> None:
    with api_server([], tmp_path, measured=False) as cluster:
        seen = KubernetesTarget.of(cluster).status(CONTROL)
    assert (seen.running, seen.memory_bytes) == (1, None)
