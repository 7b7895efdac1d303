"""Ansible module: waits until the node is ready and the cluster's own workloads serve."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

_POLL_S = 0.3


class UnsettledError(Exception):
    """Something is not ready; the message says what, and why as far as the cluster knows."""


def ask(kubectl: list[str], *what: str) -> list[dict[str, Any]]:
    """Return the objects that ``kubectl get`` finds; none if the cluster does not answer."""
    said = subprocess.run(
        [*kubectl, "get", *what, "--output=json"], capture_output=True, text=True, check=False, timeout=30
    )
    if said.returncode:
        return []
    document = json.loads(said.stdout)
    return list(document.get("items", [document]))


def unmet(objects: list[dict[str, Any]], kind: str, condition: str, names: list[str]) -> list[str]:
    """Return those of the objects whose condition is not met, each with its own message."""
    found = {each["metadata"]["name"]: each for each in objects}
    texts = []
    for name in names:
        if name not in found:
            texts.append(f"{kind} {name} is not there")
            continue
        status = found[name].get("status", {})
        held = next((each for each in status.get("conditions", []) if each["type"] == condition), None)
        current = status.get("observedGeneration", 0) >= found[name]["metadata"].get("generation", 0)
        complete = status.get("updatedReplicas", 0) == status.get("replicas", 0)
        if kind != "deployment":
            current = complete = True
        if held is None or held["status"] != "True" or not current or not complete:
            texts.append(f"{kind} {name}: {(held or {}).get('message', 'says nothing yet')}")
    return texts


def unsettled(kubectl: list[str], *, node: str, deployments: list[str], services: list[str]) -> list[str]:
    """Return what is still missing in the cluster."""
    return [
        *unmet(ask(kubectl, "nodes"), "node", "Ready", [node]),
        *unmet(
            ask(kubectl, "--namespace=kube-system", "deployments"), "deployment", "Available", deployments
        ),
        *unmet(ask(kubectl, "apiservices"), "API", "Available", services),
    ]


def complaints(pods: list[dict[str, Any]]) -> list[str]:
    """Return why containers do not run."""
    texts = []
    for pod in pods:
        for each in pod.get("status", {}).get("containerStatuses", []):
            waiting = each.get("state", {}).get("waiting")
            if waiting:
                name = f"{pod['metadata']['name']}/{each['name']}"
                texts.append(f"{name}: {waiting.get('reason')}: {waiting.get('message', '')}".strip(": "))
    return texts


def settle(
    kubectl: list[str], *, node: str, deployments: list[str], services: list[str], timeout: float
) -> None:
    """Wait for all of it.

    Raises:
        UnsettledError: it takes longer than `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while pending := unsettled(kubectl, node=node, deployments=deployments, services=services):
        if time.monotonic() > deadline:
            reasons = complaints(ask(kubectl, "--namespace=kube-system", "pods"))
            raise UnsettledError(f"after {timeout:.0f} s: " + "; ".join([*pending, *reasons]))
        time.sleep(_POLL_S)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        {
            "kubectl": {"type": "list", "elements": "str", "required": True},
            "node": {"type": "str", "required": True},
            "deployments": {"type": "list", "elements": "str", "required": True},
            "services": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "float", "default": 90.0},
        }
    )
    asked = module.params
    try:
        settle(
            asked["kubectl"],
            node=asked["node"],
            deployments=asked["deployments"],
            services=asked["services"],
            timeout=asked["timeout"],
        )
    except (OSError, subprocess.TimeoutExpired, UnsettledError) as error:
        module.fail_json(msg=f"the cluster does not settle {error}")
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
