"""The throw-away stack of the kubernetes target: one namespace of a cluster whose node is this machine."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

from components.kubernetes.labels import INSTANCE, PLATFORM
from tests.conformance.platform import NAME, Platform
from tests.waiting import eventually
from toolchain import locate

NAMESPACE = f"{PLATFORM}-{NAME}"
SERVICE = "marketlake/service"
_KUBECTL_S = 120
_NOTICED_S = 60

Object = dict[str, Any]


class LiveCluster(Platform):
    """A stack in a cluster."""

    target = "kubernetes"
    kubeconfig: ClassVar[Path] = Path(os.environ.get("KUBECONFIG", "/etc/kubernetes/admin.conf"))

    @classmethod
    def somewhere(cls) -> Self:
        """One whose state lies in a folder of its own, in a namespace that no other run is using."""
        stack = cls(Path(tempfile.mkdtemp(prefix="mlk-")))
        eventually(
            lambda: not stack.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found"),
            within_s=_NOTICED_S,
            telling=lambda: (
                f"the namespace {NAMESPACE} exists: another run uses this cluster, or one was killed; then "
                f"`kubectl delete namespace {NAMESPACE}`"
            ),
        )
        return stack

    @property
    def own_settings(self) -> dict[str, Any]:
        return {"kubernetes": {"kubeconfig": str(self.kubeconfig)}}

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
        """What kubectl says; without `check`, whatever it says."""
        program = locate("kubectl").executables["kubectl"]
        done = subprocess.run(
            [str(program), f"--kubeconfig={self.kubeconfig}", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_KUBECTL_S,
            input=stdin,
        )
        assert not check or done.returncode == 0, f"kubectl {arguments} failed:\n{done.stdout}{done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def objects(
        self, kind: str, *, service: str | None = None, namespace: str | None = NAMESPACE
    ) -> list[Object]:
        """The objects of a kind: in the namespace, of one service, or of the whole cluster."""
        chosen = [f"--selector={SERVICE}={service}"] if service else []
        where = [f"--namespace={namespace}"] if namespace else ["--all-namespaces"]
        told = self.kubectl("get", kind, *where, *chosen, "--output=json", "--ignore-not-found")
        found: list[Object] = json.loads(told)["items"] if told else []
        return found

    def pods(self, service: str | None = None) -> list[Object]:
        """The pods of the platform that live, or begin to; of one service, or of all."""
        return [
            pod
            for pod in self.objects("pods", service=service)
            if pod["status"].get("phase") not in {"Succeeded", "Failed"}
            and SERVICE in pod["metadata"].get("labels", {})
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def running(self, service: str) -> list[Object]:
        """The pods of a service whose first container runs."""
        return [pod for pod in self.pods(service) if _container_ids(pod)]

    def kill(self, service: str) -> None:
        """End the processes of the service's own containers with SIGKILL, from the node."""
        eventually(
            lambda: self.running(service), within_s=_NOTICED_S, telling=lambda: f"no pod of {service} runs"
        )
        pods = self.running(service)
        before = {container for pod in pods for container in _container_ids(pod)}
        killed = [process for pod in pods for process in processes_of(pod)]
        assert killed, f"no process of {service} is seen on this machine"
        for process in killed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(killed, timeout=10)

        def noticed() -> bool:
            now = {container for pod in self.pods(service) for container in _container_ids(pod)}
            return not before & now

        eventually(noticed, within_s=_NOTICED_S)

    def wait_for_pods(self, seconds: float = 180) -> None:
        """Wait until every pod that is asked for is ready, and no other one is there."""
        deadline = time.monotonic() + seconds
        while lacking := self.lacking():
            assert time.monotonic() < deadline, f"not ready after {seconds} s: {lacking}"
            time.sleep(0.5)

    def lacking(self) -> list[str]:
        """Workloads that have not as many ready pods of their last version as they should."""
        lacking = []
        for kind in ("deployments", "statefulsets"):
            for workload in self.objects(kind):
                status, wanted = workload["status"], workload["spec"]["replicas"]
                seen = workload["metadata"]["generation"] == status.get("observedGeneration")
                ready, updated = status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
                if not seen or ready != wanted or updated != wanted:
                    lacking.append(f"{workload['metadata']['name']}: {ready} of {wanted}")
        return lacking

    def logs(self) -> Iterator[tuple[str, bytes]]:
        for pod in self.objects("pods"):
            for container in pod["spec"]["containers"]:
                name = f"{pod['metadata']['name']}/{container['name']}"
                for former in ([], ["--previous"]):
                    text = self.kubectl(
                        "logs",
                        f"--namespace={NAMESPACE}",
                        pod["metadata"]["name"],
                        f"--container={container['name']}",
                        *former,
                        check=False,
                    )
                    yield name, text.encode()

    def kept_elsewhere(self) -> Iterator[tuple[str, bytes]]:
        kinds = (
            "configmaps",
            "pods",
            "deployments",
            "statefulsets",
            "replicasets",
            "jobs",
            "events",
            "services",
        )
        for kind in kinds:
            yield kind, json.dumps(self.objects(kind)).encode()

    def remains(self) -> set[str]:
        found = {f"pod {pod['metadata']['name']}" for pod in self.objects("pods")}
        for kind in (
            "deployments",
            "statefulsets",
            "services",
            "networkpolicies",
            "secrets",
            "jobs",
            "roles",
        ):
            found |= {f"{kind} {item['metadata']['name']}" for item in self.objects(kind)}
        classes = json.loads(
            self.kubectl("get", "priorityclasses", f"--selector={INSTANCE}={NAME}", "--output=json")
        )["items"]
        found |= {f"priorityclass {item['metadata']['name']}" for item in classes}
        if self.folder.exists():
            found.add(str(self.folder))
        if not self.has_data() and self.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found"):
            found.add(f"namespace {NAMESPACE}")
        return found

    def has_data(self) -> bool:
        return bool(self.volumes())

    def volumes(self) -> list[Object]:
        """The persistent volumes that belong to the namespace's claims."""
        return [
            volume
            for volume in self.objects("persistentvolumes", namespace=None)
            if (volume["spec"].get("claimRef") or {}).get("namespace") == NAMESPACE
        ]

    def tamper(self) -> Mapping[str, Callable[[], bool]]:
        """Remove objects of several kinds, too, and change one."""
        removed = ("deployment/workflow-worker", "networkpolicy/database", "poddisruptionbudget/event-bus")
        for item in removed:
            self.kubectl("delete", item, f"--namespace={NAMESPACE}")
        self.kubectl("scale", "deployment/collection-worker", "--replicas=1", f"--namespace={NAMESPACE}")

        def is_there(item: str) -> bool:
            return bool(self.kubectl("get", item, f"--namespace={NAMESPACE}", "--output=name", check=False))

        return {
            **super().tamper(),
            **{item.partition("/")[2]: partial(is_there, item) for item in removed},
            "collection-worker": lambda: self.replicas("collection-worker") == 2,
        }

    def replicas(self, deployment: str) -> int:
        """How many pods of it are asked for."""
        (found,) = (
            item["spec"]["replicas"]
            for item in self.objects("deployments", service=deployment)
            if item["metadata"]["name"] == deployment
        )
        return int(found)

    def discard(self) -> None:
        self.configure()
        self.make("down", check=False)
        self.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false", check=False)
        self.kubectl("delete", "priorityclasses", f"--selector={INSTANCE}={NAME}", check=False)
        shutil.rmtree(self.home, ignore_errors=True)


def processes_of(pod: Object) -> list[psutil.Process]:
    """The processes of a pod's first container, by the control group that the kubelet made for it."""
    container = pod["spec"]["containers"][0]["name"]
    ids = [
        status["containerID"].rpartition("/")[2]
        for status in pod["status"].get("containerStatuses", [])
        if status["name"] == container and status.get("containerID")
    ]
    found = []
    for process in psutil.process_iter():
        try:
            groups = Path(f"/proc/{process.pid}/cgroup").read_text()
        except OSError:
            continue
        if any(identity in groups for identity in ids):
            found.append(process)
    return found


def _container_ids(pod: Object) -> set[str]:
    """Of its first container, while that runs."""
    first = pod["spec"]["containers"][0]["name"]
    return {
        status["containerID"]
        for status in pod["status"].get("containerStatuses", [])
        if status["name"] == first and "running" in status["state"]
    }
