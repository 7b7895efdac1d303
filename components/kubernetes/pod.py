"""The pod of a service under the restricted pod security standard: container, probes, files and volumes."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from marketlake.settings import HealthKind

from components.kubernetes.layout import (
    FILES,
    LOGS,
    NAMESPACE_VARIABLE,
    SECRET_FILE,
    SECRET_VARIABLE,
    TEMPORARY,
    VOLUMES,
)
from components.rendering import PlaceholderValues, RenderedCommand, fill, render_setup
from components.service import Command, Service
from policies.rules.marks import BACKUP

NOBODY = 65532
"""User and group of every container: an id that owns nothing on the node."""
FILES_VOLUME, TEMPORARY_VOLUME, LOGS_VOLUME, TOKEN_VOLUME = "files", "temporary", "logs", "token"
HEARTBEAT_FILE = TEMPORARY / "heartbeat"
_TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a folder's name
_TOKEN_SECONDS = 3600
_SHELL = "/bin/sh"
_CPU_LIMIT_MILLIS = 2000
"""A runaway takes no more; a start, which is what needs it, is not slowed down on a small node."""
_TEMPORARY_LIMIT = "512Mi"
_PROBE_EVERY_S = 5
_FIRST_PROBE_EVERY_S = 1
_LIVENESS_FAILURES = 6
_HEARTBEAT_AGE_S = 90
_NAMESPACE_FIELD = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
_OWN_NAMESPACE = {"name": NAMESPACE_VARIABLE, "valueFrom": {"fieldRef": _NAMESPACE_FIELD}}

Texts = Callable[[Callable[[PlaceholderValues], Any], Iterable[str]], Any]
"""Fills placeholders in as early as it can be done: gives what the first argument makes of the texts in the second, at
once, or as an output where one of these waits for another resource."""


def container_security() -> dict[str, Any]:
    """Return a security context without any rights, on a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def pod_security() -> dict[str, Any]:
    """Return the user of all containers, and the default system call filter."""
    return {
        "runAsNonRoot": True,
        "runAsUser": NOBODY,
        "runAsGroup": NOBODY,
        "fsGroup": NOBODY,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container(service: Service, image: str, texts: Texts, *, files: str) -> dict[str, Any]:
    """Return the container of the service's program, without probes.

    Args:
        service: what runs.
        image: its reference, with digest.
        texts: fills in its placeholders.
        files: name of the service's Secret.
    """
    memory = f"{service.resources.memory_mib}Mi"
    return {
        "name": service.name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [_text(service, texts, argument) for argument in service.argv],
        "env": _environment(service, texts, files),
        "ports": [
            {"name": name, "containerPort": port.preferred, "protocol": "TCP"}
            for name, port in service.ports.items()
            if not port.private
        ],
        "resources": {
            "requests": {"cpu": f"{service.resources.cpu_millis}m", "memory": memory},
            "limits": {
                "cpu": f"{max(_CPU_LIMIT_MILLIS, service.resources.cpu_millis)}m",
                "memory": memory,
            },
        },
        "securityContext": container_security(),
        "volumeMounts": _mounts(service),
    }


def pod_spec(
    service: Service, image: str, texts: Texts, *, files: str, account: str, priority: str
) -> dict[str, Any]:
    """The spec of a pod that runs the service until it is ended.

    Args:
        service: what runs.
        image: its reference, with digest.
        texts: fills in its placeholders.
        files: name of the service's ConfigMap and Secret.
        account: name of its service account; its token is not mounted.
        priority: name of its priority class.
    """
    main = container(service, image, texts, files=files)
    main |= _probes(service)
    if service.stop.signal != "TERM":
        # Kubernetes sends TERM and nothing else, so the program gets its own signal before.
        hint = f"kill -{service.stop.signal} 1; sleep 1"
        main["lifecycle"] = {"preStop": {"exec": {"command": [_SHELL, "-c", hint]}}}
    return {
        **_common(service, files=files, account=account, priority=priority),
        "terminationGracePeriodSeconds": service.stop.grace_s + 5,
        "initContainers": [_setup_container(service, command, texts, main) for command in service.setup],
        "containers": [main],
    }


def job_spec(
    service: Service, image: str, texts: Texts, *, files: str, account: str, priority: str
) -> dict[str, Any]:
    """The spec of a pod that runs the service once; see :func:`pod_spec`."""
    return {
        **_common(service, files=files, account=account, priority=priority),
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": service.stop.grace_s + 5,
        "containers": [container(service, image, texts, files=files)],
    }


def with_token(spec: dict[str, Any], container_index: int = 0) -> dict[str, Any]:
    """`spec` with the service account's token in one container, short-lived and renewed by the kubelet."""
    chosen = spec["containers"][container_index]
    chosen["volumeMounts"] = [
        *chosen["volumeMounts"],
        {"name": TOKEN_VOLUME, "mountPath": _TOKEN_FOLDER, "readOnly": True},
    ]
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": _TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": _NAMESPACE_FIELD}]}},
    ]
    token = {"name": TOKEN_VOLUME, "projected": {"defaultMode": 0o440, "sources": sources}}
    spec["volumes"] = [*spec["volumes"], token]
    return spec


def with_log_reader(
    spec: dict[str, Any], image: str, command: Iterable[str], *, memory_mib: int
) -> dict[str, Any]:
    """`spec` with a second container that writes the logs of the namespace's pods to where ``{logs}`` looks.

    Files of the node would need a volume and a user that the restricted standard forbids; the API gives the same
    lines to whoever may read them.
    """
    logs = {"name": LOGS_VOLUME, "mountPath": str(LOGS)}
    spec["containers"][0]["volumeMounts"] = [
        *spec["containers"][0]["volumeMounts"],
        {**logs, "readOnly": True},
    ]
    reader = {
        "name": "pod-logs",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "env": [{"name": "HOME", "value": str(TEMPORARY)}, _OWN_NAMESPACE],
        "resources": {
            "requests": {"cpu": "20m", "memory": f"{memory_mib}Mi"},
            "limits": {"cpu": f"{_CPU_LIMIT_MILLIS}m", "memory": f"{memory_mib}Mi"},
        },
        "securityContext": container_security(),
        "volumeMounts": [{"name": TEMPORARY_VOLUME, "mountPath": str(TEMPORARY)}, logs],
    }
    spec["containers"] = [*spec["containers"], reader]
    spec["volumes"] = [*spec["volumes"], {"name": LOGS_VOLUME, "emptyDir": {"sizeLimit": _TEMPORARY_LIMIT}}]
    return with_token(spec, 1)


def claims(service: Service, storage_class: str | None) -> list[dict[str, Any]]:
    """Return the templates of the volume claims of all lasting volumes."""
    return [
        {
            "metadata": {"name": name, "annotations": {BACKUP: volume.backup} if volume.backup else {}},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": f"{volume.size_mib}Mi"}},
                **({"storageClassName": chosen} if (chosen := volume.storage_class or storage_class) else {}),
            },
        }
        for name, volume in service.volumes.items()
        if not volume.scratch
    ]


def _common(service: Service, *, files: str, account: str, priority: str) -> dict[str, Any]:
    return {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": priority,
        "securityContext": pod_security(),
        "volumes": _volumes(service, files),
    }


def _text(service: Service, texts: Texts, source: str) -> Any:
    return texts(lambda resolved: fill(source, service, resolved), [source])


def _environment(service: Service, texts: Texts, files: str) -> list[dict[str, Any]]:
    plain = {
        "HOME": str(TEMPORARY),
        "TMPDIR": str(TEMPORARY),
        **({service.heartbeat: str(HEARTBEAT_FILE)} if service.heartbeat else {}),
        **{name: _text(service, texts, source) for name, source in service.environment.items()},
    }
    # Only variables that stand before another one can be taken up in it.
    variables: list[dict[str, Any]] = [_OWN_NAMESPACE] if service.runs is not None else []
    variables += [{"name": name, "value": value} for name, value in sorted(plain.items())]
    variables += [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": files, "key": f"{SECRET_VARIABLE}{name}"}}}
        for name in sorted(service.secret_environment)
    ]
    return variables


def _mounts(service: Service) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [{"name": TEMPORARY_VOLUME, "mountPath": str(TEMPORARY)}]
    if service.files:
        mounts.append({"name": FILES_VOLUME, "mountPath": str(FILES), "readOnly": True})
    mounts += [{"name": name, "mountPath": str(VOLUMES / name)} for name in service.volumes]
    return mounts


def _volumes(service: Service, files: str) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [{"name": TEMPORARY_VOLUME, "emptyDir": {"sizeLimit": _TEMPORARY_LIMIT}}]
    volumes += [
        {"name": name, "emptyDir": {"sizeLimit": f"{volume.size_mib}Mi"}}
        for name, volume in service.volumes.items()
        if volume.scratch
    ]
    plain = [name for name, file in service.files.items() if not file.secret]
    secret = [name for name, file in service.files.items() if file.secret]
    sources: list[dict[str, Any]] = []
    if plain:
        items = [{"key": name, "path": name} for name in plain]
        sources.append({"configMap": {"name": files, "items": items}})
    if secret:
        items = [{"key": f"{SECRET_FILE}{name}", "path": name} for name in secret]
        sources.append({"secret": {"name": files, "items": items}})
    if sources:
        volumes.append({"name": FILES_VOLUME, "projected": {"defaultMode": 0o440, "sources": sources}})
    return volumes


def _probes(service: Service) -> Mapping[str, Any]:
    health = service.health
    match health.kind:
        case HealthKind.HTTP:
            ask: dict[str, Any] = {"httpGet": {"path": health.path, "port": health.port}}
        case HealthKind.TCP:
            ask = {"tcpSocket": {"port": health.port}}
        case HealthKind.PROCESS if service.heartbeat:
            age = f"$(( $(date +%s) - $(stat -c %Y {HEARTBEAT_FILE}) ))"
            ask = {"exec": {"command": [_SHELL, "-c", f'[ "{age}" -lt {_HEARTBEAT_AGE_S} ]']}}
        case HealthKind.PROCESS:
            return {}
    liveness = {"periodSeconds": _PROBE_EVERY_S, "failureThreshold": _LIVENESS_FAILURES, "timeoutSeconds": 3}
    return {
        "startupProbe": {
            **ask,
            "periodSeconds": _FIRST_PROBE_EVERY_S,
            "failureThreshold": int(health.timeout_s / _FIRST_PROBE_EVERY_S),
            "timeoutSeconds": 3,
        },
        "readinessProbe": {**ask, "periodSeconds": _PROBE_EVERY_S, "timeoutSeconds": 3},
        "livenessProbe": {**ask, **liveness},
    }


def _setup_container(
    service: Service, command: Command, texts: Texts, main: Mapping[str, Any]
) -> dict[str, Any]:
    """A container that runs one command to its end; what it created already is not created again."""

    def line(resolved: PlaceholderValues) -> str:
        rendered = next(one for one in render_setup(service, resolved) if one.name == command.name)
        return _command_line(rendered)

    shared = ("image", "imagePullPolicy", "env", "resources", "securityContext", "volumeMounts")
    return {
        "name": command.name.replace(" ", "-").replace("'", ""),
        "command": [_SHELL, "-c", texts(line, [*command.argv, command.creates or ""])],
        **{key: main[key] for key in shared},
    }


def _command_line(command: RenderedCommand) -> str:
    line = shlex.join(command.argv)
    if command.stdin:
        line += f" < {shlex.quote(str(command.stdin))}"
    if command.creates:
        made = shlex.quote(str(command.creates))
        if command.staged:
            draft = shlex.quote(f"{command.creates}.part")
            line = f"rm -rf {draft} && {line} && mv {draft} {made}"
        line = f"[ -e {made} ] || {{ {line}; }}"
    return line
