"""How Prefect's Kubernetes worker starts a run: the base job template of its work pool, and what it is told itself."""

import copy
from collections.abc import Mapping
from typing import Any

from components.kubernetes.layout import SECRET_VARIABLE

_KEPT_S = 3600
"""How long a finished Job can be looked at."""
_CONTAINER = "prefect-job"
"""The name that the worker expects."""
_POD_WATCH_S = 180


def base_job_template(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The base job template of a work pool of type ``kubernetes`` for a Job that a target describes.

    Source: ``KubernetesWorkerJobConfiguration`` of prefect-kubernetes 0.8, which merges the run's own labels and
    variables into the manifest.

    Args:
        manifest: a Job whose first container executes the run that ``PREFECT__FLOW_RUN_ID`` names.
    """
    job = copy.deepcopy(dict(manifest))
    spec = job["spec"]
    pod = spec["template"]["spec"]
    pod |= {"parallelism": 1, "completions": 1, "restartPolicy": "Never"}  # where the worker looks for them
    pod["containers"][0]["name"] = _CONTAINER
    spec["ttlSecondsAfterFinished"] = _KEPT_S
    job["metadata"]["generateName"] = "{{ name }}-"
    return {
        "variables": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "default": "workflow-run"},
                "env": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
            },
        },
        "job_configuration": {
            "name": "{{ name }}",
            "env": "{{ env }}",
            "labels": "{{ labels }}",
            "command": None,
            "namespace": job["metadata"]["namespace"],
            "job_manifest": job,
            "stream_output": False,
            "pod_watch_timeout_seconds": _POD_WATCH_S,
        },
    }


def worker_environment(run: str, auth_variable: str) -> dict[str, str]:
    """Variables of the worker by which its Jobs read the API's authentication from a Secret, not from plain text.

    Args:
        run: name of the service that a run is; its Secret has the same.
        auth_variable: the run's secret environment variable that holds the authentication.
    """
    prefix = "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET"
    return {f"{prefix}_NAME": run, f"{prefix}_KEY": f"{SECRET_VARIABLE}{auth_variable}"}
