"""What Prefect's Kubernetes worker makes of the base job template, made by the worker's own code."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect_kubernetes.settings import KubernetesSettings  # type: ignore[import-untyped]  # it has no stubs
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration  # type: ignore[import-untyped]

from components.flow_job import base_job_template, worker_environment

RUN = FlowRun(id=uuid4(), flow_id=uuid4(), name="collect 1234", labels={})


def manifest() -> dict[str, Any]:
    """A Job as the kubernetes target describes it."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"namespace": "lake", "labels": {"marketlake/service": "workflow-run"}},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {
                    "labels": {"marketlake/service": "workflow-run", "marketlake/calls-database": "true"}
                },
                "spec": {
                    "serviceAccountName": "workflow-run",
                    "automountServiceAccountToken": False,
                    "containers": [
                        {
                            "name": "workflow-run",
                            "image": "marketlake.local/marketlake@sha256:12",
                            "command": ["/opt/marketlake/bin/prefect", "flow-run", "execute"],
                            "env": [
                                {"name": "HOME", "value": "/tmp"},
                                {"name": "PREFECT_API_URL", "value": "http://10.96.0.7:4200/api"},
                                {
                                    "name": "PREFECT_API_AUTH_STRING",
                                    "valueFrom": {"secretKeyRef": {"name": "workflow-run", "key": "e.auth"}},
                                },
                            ],
                            "resources": {"limits": {"memory": "512Mi"}},
                        }
                    ],
                },
            },
        },
    }


def made(template: dict[str, Any]) -> KubernetesWorkerJobConfiguration:
    """The configuration of a run, as the worker makes it."""

    async def make() -> KubernetesWorkerJobConfiguration:
        with temporary_settings(
            {
                PREFECT_API_URL: "http://10.96.0.7:4200/api",
                PREFECT_API_AUTH_STRING: "marketlake:secret",
                PREFECT_HOME: "/var/lib/marketlake/home",
            }
        ):
            configuration = await KubernetesWorkerJobConfiguration.from_template_and_values(
                json.loads(json.dumps(template)), {}
            )
            configuration.prepare_for_flow_run(RUN)
            return configuration

    return asyncio.run(make())


def container_of(configuration: KubernetesWorkerJobConfiguration) -> dict[str, Any]:
    spec = configuration.job_manifest["spec"]["template"]["spec"]
    found: dict[str, Any] = spec["containers"][0]
    return found


def environment(container: dict[str, Any]) -> dict[str, Any]:
    names = [one["name"] for one in container["env"]]
    assert len(names) == len(set(names))
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def test_the_worker_takes_the_template_and_tells_the_job_which_run_it_is() -> None:
    configuration = made(base_job_template(manifest()))
    container = container_of(configuration)
    assert configuration.namespace == "lake"
    command = [*container["command"], *container["args"]]
    assert command == ["/opt/marketlake/bin/prefect", "flow-run", "execute"]
    assert container["image"] == "marketlake.local/marketlake@sha256:12"
    assert environment(container)["PREFECT__FLOW_RUN_ID"] == str(RUN.id)
    assert environment(container)["HOME"] == "/tmp"


def test_what_the_job_is_told_wins_over_what_the_worker_has_been_told_itself() -> None:
    """The worker's own folder is no folder of the run's pod, whose root file system is read-only."""
    assert environment(container_of(made(base_job_template(manifest()))))["PREFECT_HOME"] == "/tmp/prefect"


def test_a_run_that_is_ended_with_its_node_is_not_begun_twice_by_kubernetes() -> None:
    job = made(base_job_template(manifest())).job_manifest
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert job["metadata"]["generateName"] == "workflow-run-"


def test_the_pod_keeps_the_labels_that_policies_and_logs_find_it_by() -> None:
    labels = made(base_job_template(manifest())).job_manifest["spec"]["template"]["metadata"]["labels"]
    assert labels["marketlake/service"] == "workflow-run"
    assert labels["marketlake/calls-database"] == "true"
    assert labels["prefect.io/flow-run-id"] == str(RUN.id)


def test_the_template_says_nothing_of_a_run_that_must_not_be_known_twice() -> None:
    before = manifest()
    base_job_template(before)
    assert before == manifest()


def test_the_worker_takes_the_authentication_from_a_secret_and_looks_at_its_own_namespace_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = worker_environment("workflow-run", "PREFECT_API_AUTH_STRING")
    for name, value in told.items():
        monkeypatch.setenv(name, value.replace("$(NAMESPACE)", "lake"))  # as the kubelet does
    seen = KubernetesSettings()
    assert seen.worker.api_auth_string_secret_name == "workflow-run"
    assert str(seen.worker.api_auth_string_secret_key).endswith("PREFECT_API_AUTH_STRING")
    assert seen.observer.namespaces == {"lake"}
