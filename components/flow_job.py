"""How Prefect's Kubernetes worker starts a run: the base job template of its work pool, and its own environment."""

import copy
from collections.abc import Mapping
from typing import Any

from components.kubernetes.layout import NAMESPACE_VARIABLE, SECRET_VARIABLE, TEMPORARY

_KEPT_S = 3600
"""How long a finished Job can be looked at."""
_CONTAINER = "prefect-job"
"""The name that the worker expects."""
_POD_WATCH_S = 180
_HOME = {"PREFECT_HOME": str(TEMPORARY / "prefect")}
"""The worker hands its own settings on to its Jobs, where its folders are missing: the Job's own settings must win."""


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
    container = pod["containers"][0]
    # Without arguments the worker adds its own whole command line to the container's.
    program, *arguments = container["command"]
    container |= {"name": _CONTAINER, "command": [program], "args": arguments}
    told = {one["name"]: one["value"] for one in container.get("env", ()) if "value" in one}
    spec["ttlSecondsAfterFinished"] = _KEPT_S
    job["metadata"]["generateName"] = "{{ name }}-"
    return {
        "variables": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "default": "workflow-run"},
                "env": {
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                    "default": _HOME | told,
                },
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
    """Variables of the worker of a cluster.

    By these its Jobs read the API's authentication from a Secret, not from plain text, and it watches the Jobs of its
    own namespace, where it would ask for those of the whole cluster. The namespace is the variable that the
    kubernetes target gives to every service that starts Jobs.

    Args:
        run: name of the service that a run is; its Secret has the same.
        auth_variable: the run's secret environment variable that holds the authentication.
    """
    kubernetes = "PREFECT_INTEGRATIONS_KUBERNETES"
    secret = f"{kubernetes}_WORKER_API_AUTH_STRING_SECRET"
    return {
        f"{secret}_NAME": run,
        f"{secret}_KEY": f"{SECRET_VARIABLE}{auth_variable}",
        f"{kubernetes}_OBSERVER_NAMESPACES": f"$({NAMESPACE_VARIABLE})",
    }
