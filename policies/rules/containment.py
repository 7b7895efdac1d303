"""Containment: what a container may do to the machine and to other containers.

The fields and their allowed values are those of the restricted pod security standard
(https://kubernetes.io/docs/concepts/security/pod-security-standards/), and a read-only root file system.
"""

from collections.abc import Iterator
from typing import Any

from policies.rules.pods import Container, Pod, containers_of, pod_of
from policies.rules.reading import UNKNOWN, at, differs, is_known, items_at
from policies.rules.rule import Properties, Rule, Violation

_SECURITY = "securityContext"
_MAY_ADD = "NET_BIND_SERVICE"
"""The only capability that the restricted standard lets a container have."""
_SYSTEM_CALL_FILTERS = ("RuntimeDefault", "Localhost")
_OF_THE_NODE = ("hostPID", "hostIPC")


def privileges(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """No privileged container, no escalation, no capability, nothing of the node."""
    pod = pod_of(resource_type, properties)
    if pod is None:
        return
    for shared in _OF_THE_NODE:
        if at(pod.spec, shared) is True:
            yield pod.violation("shares this with the node; leave it out", shared)
    for index, volume in items_at(pod.spec, "volumes"):
        if at(volume, "hostPath") not in (None, UNKNOWN):
            yield pod.violation("mounts a folder of the node; use a claim or an emptyDir", "volumes", index)
    for container in pod.containers:
        yield from _privileges_of(container)


def _privileges_of(container: Container) -> Iterator[Violation]:
    if at(container.spec, _SECURITY, "privileged") is True:
        yield container.violation("is true; leave it out", _SECURITY, "privileged")
    if differs(at(container.spec, _SECURITY, "allowPrivilegeEscalation"), False):
        yield container.violation("must be false", _SECURITY, "allowPrivilegeEscalation")
    dropped = at(container.spec, _SECURITY, "capabilities", "drop")
    if dropped is not UNKNOWN and not any(item == "ALL" or not is_known(item) for item in dropped or ()):
        yield container.violation('must be ["ALL"]', _SECURITY, "capabilities", "drop")
    for index, added in items_at(container.spec, _SECURITY, "capabilities", "add"):
        if added != _MAY_ADD:
            yield container.violation(
                f"adds {added}; {_MAY_ADD} is the only one allowed", _SECURITY, "capabilities", "add", index
            )


def root(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """No container runs as root, nor could."""
    pod = pod_of(resource_type, properties)
    if pod is None:
        return
    if at(pod.spec, _SECURITY, "runAsUser") == 0:
        yield pod.violation("is 0, which is root; give another id", _SECURITY, "runAsUser")
    for container in pod.containers:
        if at(container.spec, _SECURITY, "runAsUser") == 0:
            yield container.violation("is 0, which is root; give another id", _SECURITY, "runAsUser")
        if differs(_effective(pod, container, "runAsNonRoot"), True):
            yield container.violation("must be true, here or for the whole pod", _SECURITY, "runAsNonRoot")


def system_calls(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """Every container is held to a system call filter."""
    pod = pod_of(resource_type, properties)
    if pod is None:
        return
    for container in pod.containers:
        profile = _effective(pod, container, "seccompProfile")
        kind = at(profile, "type")
        if differs(kind, *_SYSTEM_CALL_FILTERS):
            yield container.violation(
                f"is {kind}; RuntimeDefault or Localhost is allowed", _SECURITY, "seccompProfile", "type"
            )


def root_file_system(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """No container can change its image's files."""
    for container in containers_of(resource_type, properties):
        if differs(at(container.spec, _SECURITY, "readOnlyRootFilesystem"), True):
            yield container.violation("must be true", _SECURITY, "readOnlyRootFilesystem")


def _effective(pod: Pod, container: Container, setting: str) -> Any:
    """What holds for a container: what it says itself, else what its pod says."""
    own = at(container.spec, _SECURITY, setting)
    return at(pod.spec, _SECURITY, setting) if own is None else own


RULES = (
    Rule(
        id="no-privileges",
        title="Containers have no rights on the node",
        why="A program that is broken into must not reach the machine, and with it everything else that runs there.",
        remedy="Set allowPrivilegeEscalation to false, drop all capabilities, and leave out privileged, hostPID, "
        "hostIPC and hostPath volumes.",
        resource=privileges,
    ),
    Rule(
        id="no-root",
        title="No container runs as root",
        why="Root inside a container is root outside of it as soon as one fault of the kernel is found.",
        remedy="Set runAsNonRoot to true and runAsUser to an id above 0, for the pod or for each container.",
        resource=root,
    ),
    Rule(
        id="system-call-filter",
        title="Containers are held to a system call filter",
        why="Most ways out of a container use system calls that no ordinary program needs.",
        remedy="Set seccompProfile to {type: RuntimeDefault}, for the pod or for each container.",
        resource=system_calls,
    ),
    Rule(
        id="read-only-root",
        title="Containers cannot change their own files",
        why="What is written into a container's own files is lost with it, and is how an intruder stays.",
        remedy="Set readOnlyRootFilesystem to true, and mount volumes where the program writes.",
        resource=root_file_system,
    ),
)
