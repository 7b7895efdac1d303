"""What `make cluster` promises of the node, looked at from the node itself and from pods."""

import http.client
import ipaddress
import json
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import testinfra
from testinfra.host import Host

from playbooks.node import CONTAINERD_SOCKET, DATA, ETC, PODS, PROGRAMS, RECORD, RUN
from tests.kubernetes.live import LiveCluster
from tests.kubernetes.node import stopped_daemon
from tests.waiting import eventually
from toolchain import locate
from toolchain.bom import load_bom
from toolchain.images import locate as locate_image

DAEMONS = {
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kube-network-policies",
}
POD_S, POLICY_S = 90, 45
"""How long a pod may take to run, and a policy to hold, beside other work on two cores."""


class Cluster:
    """kubectl, in a namespace of this file's own."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = f"mlt-cluster-{uuid.uuid4().hex[:6]}"
        self.told = ""
        self._program = str(locate("kubectl").executables["kubectl"])

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program, f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def said(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {arguments} failed:\n{done.stdout}{done.stderr}"
        return done.stdout

    def get(self, *what: str) -> Any:
        return json.loads(self.said("get", *what, "--output=json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        self.said(
            "apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    def pod(
        self, name: str, *command: str, volumes: list[dict[str, Any]] | None = None, **labels: str
    ) -> None:
        """Make a pod as the restricted standard wants it, and wait until it runs."""
        mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes or []]
        container = {
            "name": "main",
            "image": locate_image("busybox").reference,
            "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-c", *command],
            "volumeMounts": mounts,
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        spec = {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": volumes or [],
        }
        metadata = {"name": name, "labels": {"name": name, **labels}}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        self.said("wait", f"pod/{name}", "--for=condition=Ready", f"--timeout={POD_S}s")

    def reaches(self, pod: str, url: str) -> bool:
        done = self.run("exec", pod, "--", "timeout", "3", "wget", "-q", "-O", "-", url)
        self.told = f"{url} from {pod}: status {done.returncode}, {done.stdout!r}, {done.stderr!r}"
        return done.stdout == "hello\n"


@pytest.fixture(scope="module")
def kube(cluster: Path) -> Iterator[Cluster]:
    """A namespace with a pod `web` behind a Service, and pods `near` and `far` that may want to talk to it."""
    kube = Cluster(cluster)
    kube.said("create", "namespace", kube.namespace)
    try:
        kube.pod(
            "web",
            "mkdir /tmp/www; echo hello > /tmp/www/index.html; echo serving; httpd -f -p 8080 -h /tmp/www",
        )
        port = {"port": 80, "targetPort": 8080}
        service = {"selector": {"name": "web"}, "ports": [port]}
        kube.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service})
        kube.pod("near", "sleep 3600", may="talk")
        kube.pod("far", "sleep 3600")
        yield kube
    finally:
        kube.run("delete", "namespace", kube.namespace, "--wait=false")


@pytest.fixture(scope="module")
def node(cluster: Path) -> Host:
    """The machine, if `make cluster` made the cluster of it."""
    if cluster != LiveCluster.kubeconfig or not RECORD.exists():
        pytest.skip(f"{cluster} is not of a cluster that `make cluster` made here")
    return testinfra.get_host("local://")


@pytest.fixture(scope="module")
def address(node: Host, kube: Cluster) -> str:
    """The node's own."""
    (found,) = kube.get("nodes")["items"]
    return str(next(each["address"] for each in found["status"]["addresses"] if each["type"] == "InternalIP"))


def daemon_processes() -> dict[int, psutil.Process]:
    """The daemons of this machine's node, without the shims that hold pods."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARKETLAKE_CLUSTER") in DAEMONS and "shim" not in process.name():
                found[process.pid] = process
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def status_without_certificate(address: str, port: int, path: str) -> int:
    context = ssl.create_default_context(cafile=str(ETC / "pki" / "ca.crt"))
    connection = http.client.HTTPSConnection(address, port, context=context, timeout=5)
    connection.request("GET", path)
    return connection.getresponse().status


# The node itself


def test_every_daemon_runs_under_the_supervisor(node: Host) -> None:
    programs = {Path(process.exe()).name for process in daemon_processes().values()}
    assert programs == DAEMONS
    assert node.file(str(RUN / "supervisor.sock")).is_socket
    assert node.file(str(CONTAINERD_SOCKET)).is_socket


def test_daemons_listen_on_the_nodes_own_addresses_only(node: Host, address: str) -> None:
    ours = daemon_processes()
    listening = {
        (ours[each.pid].name(), each.laddr.ip, each.laddr.port)
        for each in psutil.net_connections("inet")
        if each.status == psutil.CONN_LISTEN and each.pid in ours
    }
    assert ("kube-apiserver", address, 6443) in listening
    assert ("kubelet", address, 10250) in listening
    elsewhere = {each for each in listening if each[1] not in {"127.0.0.1", "::1", address}}
    assert not elsewhere, "these could be reached from another machine's network"


def test_nobody_gets_in_without_a_certificate(node: Host, address: str) -> None:
    assert status_without_certificate(address, 6443, "/api/v1/namespaces") == 401
    assert status_without_certificate(address, 6443, "/healthz") == 401
    assert status_without_certificate(address, 10250, "/pods") == 401
    assert not node.socket("tcp://10255").is_listening, "the kubelet's read-only port"
    with pytest.raises(ssl.SSLError):
        status_without_certificate("127.0.0.1", 2379, "/v3/kv/range")


def test_keys_are_roots_alone(node: Host) -> None:
    keys = [*(ETC / "pki").glob("*.key"), ETC / "admin.conf", ETC / "encryption.yaml"]
    assert len(keys) > 10
    for key in keys:
        assert (node.file(str(key)).mode, node.file(str(key)).user) == (0o600, "root"), key


def test_secrets_lie_encrypted_on_the_disk(node: Host, kube: Cluster) -> None:
    plain, secret = f"plain-{uuid.uuid4().hex}", f"secret-{uuid.uuid4().hex}"
    kube.said("create", "configmap", "plain", f"--from-literal=value={plain}")
    kube.said("create", "secret", "generic", "hidden", f"--from-literal=value={secret}")

    def on_disk() -> bytes:
        return b"".join(path.read_bytes() for path in (DATA / "etcd").rglob("*") if path.is_file())

    eventually(lambda: plain.encode() in on_disk())
    assert secret.encode() not in on_disk()


def test_a_second_run_changes_nothing(node: Host) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "playbooks", "up", "--json", "--address", _server_address()],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    changed = [step["name"] for step in summary["steps"] if step["changed"]]
    assert (summary["changed"], changed) == (0, []), f"took {time.monotonic() - began:.0f} s"


def _server_address() -> str:
    kubeconfig = json.loads(LiveCluster.kubeconfig.read_text())
    return str(kubeconfig["clusters"][0]["cluster"]["server"].removeprefix("https://").rpartition(":")[0])


def test_programs_are_the_pinned_ones(node: Host) -> None:
    version = load_bom().tool("kubernetes").version
    assert node.check_output(f"{PROGRAMS / 'kubelet'} --version") == f"Kubernetes v{version}"


# The cluster


def test_the_node_is_ready_and_of_the_pinned_version(kube: Cluster) -> None:
    (node,) = kube.get("nodes")["items"]
    conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    assert node["status"]["nodeInfo"]["kubeletVersion"] == f"v{load_bom().tool('kubernetes').version}"


def test_a_pod_gets_an_address_and_its_logs_and_shell_can_be_had(kube: Cluster) -> None:
    pod = kube.get("pod", "web")
    assert ipaddress.ip_address(pod["status"]["podIP"]) in PODS
    assert kube.said("logs", "web") == "serving\n"
    assert kube.said("exec", "web", "--", "id", "-u") == "65532\n"


def test_a_pod_has_no_address_on_which_no_policy_holds(kube: Cluster) -> None:
    links = {
        line.split()[-1] for line in kube.said("exec", "web", "--", "cat", "/proc/net/if_inet6").splitlines()
    }
    assert links <= {"lo"}, "pods would reach each other by IPv6, whatever NetworkPolicies say"


def test_a_service_answers_by_name_to_pods_and_to_itself_and_by_address_to_the_node(kube: Cluster) -> None:
    name = f"http://web.{kube.namespace}.svc.cluster.local"
    eventually(lambda: kube.reaches("near", name), within_s=POLICY_S, telling=lambda: kube.told)
    assert kube.reaches("near", "http://web"), "its short name"
    assert kube.reaches("web", name), "a pod must reach itself through its Service"
    address = kube.get("service", "web")["spec"]["clusterIP"]
    connection = http.client.HTTPConnection(address, 80, timeout=5)
    connection.request("GET", "/index.html")
    assert connection.getresponse().read() == b"hello\n"


def test_a_closed_way_is_closed_and_the_open_one_stays_open(kube: Cluster) -> None:
    web = f"http://{kube.get('pod', 'web')['status']['podIP']}:8080"
    assert kube.reaches("far", web), f"no policy holds yet, but {kube.told}"
    allowed = {"from": [{"podSelector": {"matchLabels": {"may": "talk"}}}], "ports": [{"port": 8080}]}
    policy = {
        "podSelector": {"matchLabels": {"name": "web"}},
        "policyTypes": ["Ingress"],
        "ingress": [allowed],
    }
    kube.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "web"},
            "spec": policy,
        }
    )
    try:
        eventually(lambda: not kube.reaches("far", web), within_s=POLICY_S, telling=lambda: kube.told)
        assert kube.reaches("near", web)
        assert kube.reaches("near", "http://web")
        assert not kube.reaches("far", "http://web"), "nor through the Service"
    finally:
        kube.said("delete", "networkpolicy", "web")
    eventually(lambda: kube.reaches("far", web), within_s=POLICY_S, telling=lambda: kube.told)


def test_names_are_answered_to_a_pod_that_may_ask_only_port_53(kube: Cluster) -> None:
    names = {
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
    }
    metadata = {"name": "names"}
    spec = {"podSelector": {"matchLabels": {"name": "far"}}, "policyTypes": ["Egress"], "egress": [names]}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    }
    web = f"http://{kube.get('pod', 'web')['status']['podIP']}:8080"
    kube.apply(policy)
    try:
        eventually(lambda: not kube.reaches("far", web), within_s=POLICY_S, telling=lambda: kube.told)
        answered = kube.run("exec", "far", "--", "nslookup", f"web.{kube.namespace}.svc.cluster.local.")
        assert answered.returncode == 0, answered.stdout
    finally:
        kube.said("delete", "networkpolicy", "names")


def test_without_the_daemon_that_enforces_policies_pods_are_closed_not_open(
    node: Host, kube: Cluster
) -> None:
    web = f"http://{kube.get('pod', 'web')['status']['podIP']}:8080"
    assert kube.reaches("near", web), kube.told
    with stopped_daemon("kube-network-policies"):
        assert not kube.reaches("near", web), "no policy forbids it, but nobody judges"
        assert not policies_enforced()
    eventually(lambda: kube.reaches("near", web), within_s=POLICY_S, telling=lambda: kube.told)
    eventually(policies_enforced)


def test_rules_that_enforce_policies_are_missed_and_written_again(node: Host, kube: Cluster) -> None:
    assert policies_enforced()
    node.check_output("iptables --wait 10 --table mangle --flush KUBE-NETWORK-POLICIES")
    assert not policies_enforced(), "the node must not call itself ready now"
    eventually(policies_enforced)


def policies_enforced() -> bool:
    """What the daemon says of itself, as `make cluster` asks it."""
    connection = http.client.HTTPConnection("127.0.0.1", 20244, timeout=10)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except ConnectionRefusedError:
        return False
    finally:
        connection.close()


def test_a_claim_is_bound_to_a_folder_that_outlasts_its_pod_and_goes_with_the_claim(kube: Cluster) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    kube.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec}
    )
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    kube.pod("first", "echo kept > /data/file; sleep 3600", volumes=[volume])
    eventually(lambda: kube.run("exec", "first", "--", "cat", "/data/file").stdout == "kept\n")
    claim = kube.get("pvc", "data")
    assert (claim["status"]["phase"], claim["spec"]["storageClassName"]) == ("Bound", "local")
    folder = Path(kube.get("pv", claim["spec"]["volumeName"])["spec"]["local"]["path"])
    kube.said("delete", "pod", "first")
    kube.pod("second", "sleep 3600", volumes=[volume])
    assert kube.said("exec", "second", "--", "cat", "/data/file") == "kept\n"
    kube.said("delete", "pod", "second")
    if RECORD.exists():
        assert (folder / "file").read_text() == "kept\n"
    kube.said("delete", "pvc", "data")
    eventually(lambda: not folder.exists(), within_s=POD_S)


def test_pods_and_nodes_are_measured(kube: Cluster) -> None:
    eventually(lambda: kube.run("top", "pod", "near").returncode == 0, within_s=POD_S)
    assert "near" in kube.said("top", "pod", "near")
    assert "%" in kube.said("top", "nodes")


def test_clients_can_read_what_every_api_of_the_cluster_is_like(kube: Cluster) -> None:
    definitions = json.loads(kube.said("get", "--raw", "/openapi/v2"))["definitions"]
    shapeless = [name for name, definition in definitions.items() if "SchemaProps" in definition]
    assert definitions
    assert not shapeless, "an aggregated API described itself in the names of Go structures"
    assert "usage" in kube.said("explain", "nodemetrics")


def test_a_privileged_pod_is_refused_where_nobody_asked_for_less(kube: Cluster) -> None:
    container = {
        "name": "main",
        "image": locate_image("busybox").reference,
        "securityContext": {"privileged": True},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "mighty"},
        "spec": {"containers": [container]},
    }
    done = kube.run("apply", "--filename=-", stdin=json.dumps(pod))
    assert done.returncode != 0
    assert 'violates PodSecurity "baseline:latest": privileged' in done.stderr
