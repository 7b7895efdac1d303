"""What the roles write: each file is what its reader takes, and none is laxer than promised."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

from playbooks.node import Node
from playbooks.running import FOLDER
from tests.unit.playbooks.conftest import PROGRAMS

ROLES = FOLDER / "roles"
init_plugin_loader()  # it takes only one call


class Rendering:
    """The roles' templates and variables, with a node's values."""

    def __init__(self, variables: dict[str, Any]) -> None:
        self._loader = DataLoader()
        file = ROLES / "daemons" / "vars" / "main.yaml"
        of_daemons = self._loader.load_from_file(str(file), trusted_as_template=True)
        self._variables = {**variables, **of_daemons}

    def variable(self, name: str) -> Any:
        """A variable of the role `daemons`."""
        return self._templar("daemons").template(self._variables[name])

    def text(self, role: str, name: str) -> str:
        """A template's text."""
        asked = trust_as_template(f"{{{{ lookup('template', '{name}.j2') }}}}")
        return str(self._templar(role).template(asked))

    def objects(self, name: str) -> dict[tuple[str, str], dict[str, Any]]:
        """A manifest's objects by kind and name."""
        documents = yaml.safe_load_all(self.text("workloads", name))
        return {(each["kind"], each["metadata"]["name"]): each for each in documents}

    def arguments(self, daemon: str) -> dict[str, str]:
        """Options of a daemon's command line; those without a value are ``true``."""
        (command,) = (each["command"] for each in self.variable("daemons") if each["name"] == daemon)
        pairs = (word.removeprefix("--").partition("=") for word in command[1:] if word.startswith("--"))
        return {name: value or "true" for name, _, value in pairs}

    def _templar(self, role: str) -> Templar:
        return Templar(self._loader, variables=self._variables | {"ansible_search_path": [str(ROLES / role)]})


@pytest.fixture
def rendering(node: Node, tmp_path: Path) -> Rendering:
    pki = tmp_path / "pki"
    pki.mkdir()
    for name in ("ca.crt", "metrics-server.crt", "metrics-server.key"):
        (pki / name).write_text(f"{name}\n")
    return Rendering({**node.variables(), "pki": str(pki)})


@pytest.mark.parametrize("name", ["access.yaml", "coredns.yaml", "storage.yaml", "metrics.yaml"])
def test_every_object_of_the_clusters_own_lies_in_kube_system_or_in_no_namespace(rendering, name) -> None:
    namespaces = {each["metadata"].get("namespace") for each in rendering.objects(name).values()}
    assert namespaces <= {"kube-system", None}


@pytest.mark.parametrize("name", ["coredns", "local-path-provisioner", "metrics-server"])
def test_the_clusters_own_pods_have_no_rights_that_they_do_not_need(rendering, node, name) -> None:
    manifest = {"coredns": "coredns", "local-path-provisioner": "storage", "metrics-server": "metrics"}[name]
    pod = rendering.objects(f"{manifest}.yaml")["Deployment", name]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["priorityClassName"] == "system-cluster-critical"
    (container,) = pod["containers"]
    assert container["image"] == node.images[name].reference
    assert container["command"][0] == node.images[name].program
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["resources"].keys() == {"requests", "limits"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_storage_class_is_the_default_waits_for_pods_and_deletes(rendering, node) -> None:
    objects = rendering.objects("storage.yaml")
    storage = objects["StorageClass", "local"]
    annotations = storage["metadata"]["annotations"]
    assert annotations["storageclass.kubernetes.io/is-default-class"] == "true"
    assert (storage["volumeBindingMode"], storage["reclaimPolicy"]) == ("WaitForFirstConsumer", "Delete")
    configuration = objects["ConfigMap", "local-path-provisioner"]["data"]
    (paths,) = json.loads(configuration["config.json"])["nodePathMap"]
    assert paths["paths"] == ["/var/lib/marketlake-cluster/volumes"]
    (container,) = yaml.safe_load(configuration["helperPod.yaml"])["spec"]["containers"]
    assert container["image"] == node.images["busybox"].reference


def test_names_are_asked_for_at_the_promised_address(rendering) -> None:
    objects = rendering.objects("coredns.yaml")
    service = objects["Service", "kube-dns"]["spec"]
    assert service["clusterIP"] == "10.96.0.10"
    ports = {port["name"]: port for port in service["ports"]}
    assert {ports[name]["port"] for name in ("dns", "dns-tcp")} == {53}
    assert "forward . /etc/resolv.conf" in objects["ConfigMap", "coredns"]["data"]["Corefile"]


def test_names_of_the_world_are_not_asked_for_where_nobody_knows_them(node, tmp_path) -> None:
    rendering = Rendering({**node.variables(), "name_servers": []})
    assert "forward" not in rendering.objects("coredns.yaml")["ConfigMap", "coredns"]["data"]["Corefile"]
    assert "nameserver" not in rendering.text("daemons", "resolv.conf")


def test_pods_ask_the_machines_own_name_servers(rendering) -> None:
    _, *servers = rendering.text("daemons", "resolv.conf").splitlines()
    assert servers == ["nameserver 192.0.2.53", "nameserver 192.0.2.54"]


def test_metrics_come_over_a_proven_connection(rendering) -> None:
    objects = rendering.objects("metrics.yaml")
    assert "insecureSkipTLSVerify" not in objects["APIService", "v1beta1.metrics.k8s.io"]["spec"]
    (container,) = objects["Deployment", "metrics-server"]["spec"]["template"]["spec"]["containers"]
    assert not [word for word in container["command"] if "insecure" in word]


def test_the_kubelet_answers_only_those_whom_the_api_server_knows(rendering) -> None:
    kubelet = yaml.safe_load(rendering.text("daemons", "kubelet.yaml"))
    assert kubelet["authentication"]["anonymous"]["enabled"] is False
    assert kubelet["authentication"]["webhook"]["enabled"] is True
    assert kubelet["authorization"]["mode"] == "Webhook"
    assert kubelet["readOnlyPort"] == 0
    assert (
        kubelet["imageGCHighThresholdPercent"] == 100
    )  # an image that was built here cannot be pulled again
    assert kubelet["address"] == "198.51.100.10"
    assert kubelet["clusterDNS"] == ["10.96.0.10"]
    assert kubelet["containerRuntimeEndpoint"] == "unix:///run/marketlake-cluster/containerd/containerd.sock"


@pytest.mark.parametrize(("systemd", "driver"), [(False, "cgroupfs"), (True, "systemd")])
def test_control_groups_belong_to_systemd_where_it_rules(node, systemd, driver) -> None:
    rendering = Rendering({**node.variables(), "systemd": systemd})
    assert yaml.safe_load(rendering.text("daemons", "kubelet.yaml"))["cgroupDriver"] == driver
    assert _runc(rendering)["SystemdCgroup"] is systemd


def test_containerd_is_one_of_our_own(rendering, node) -> None:
    containerd = tomllib.loads(rendering.text("daemons", "containerd.toml"))
    assert containerd["grpc"]["address"] == "/run/marketlake-cluster/containerd/containerd.sock"
    assert {containerd["root"], containerd["state"]} == {
        "/var/lib/marketlake-cluster/containerd",
        "/run/marketlake-cluster/containerd",
    }
    cri = containerd["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == node.images["pause"].reference
    assert cri["restrict_oom_score_adj"] is True
    assert cri["stream_server_address"] == "127.0.0.1"


def test_containerd_lowers_oom_scores_where_it_may(node) -> None:
    rendering = Rendering({**node.variables(), "oom_restricted": False})
    cri = tomllib.loads(rendering.text("daemons", "containerd.toml"))["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is False


def test_a_pod_reaches_itself_through_its_service(rendering) -> None:
    network = json.loads(rendering.text("daemons", "cni.conflist"))
    bridge = network["plugins"][0]
    assert (bridge["bridge"], bridge["hairpinMode"]) == ("cni0", True)
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.244.0.0/24"}]]


def test_a_pod_has_no_address_on_which_no_policy_holds(rendering) -> None:
    """The kernel gives every link an IPv6 address of its own accord, and NetworkPolicies here are about IPv4."""
    network = json.loads(rendering.text("daemons", "cni.conflist"))
    tuning = next(each for each in network["plugins"] if each["type"] == "tuning")
    assert tuning["sysctl"] == {"net.ipv6.conf.eth0.disable_ipv6": "1"}


def test_secrets_are_encrypted_before_they_are_written_and_each_cluster_has_its_key(rendering) -> None:
    def key() -> str:
        (entry,) = yaml.safe_load(rendering.text("daemons", "encryption.yaml"))["resources"]
        assert entry["resources"] == ["secrets"]
        first, last = entry["providers"]
        assert last == {"identity": {}}
        return str(first["secretbox"]["keys"][0]["secret"])

    assert key() != key()


def test_namespaces_enforce_a_standard_unless_they_say_otherwise(rendering) -> None:
    (plugin,) = yaml.safe_load(rendering.text("daemons", "admission.yaml"))["plugins"]
    standard = plugin["configuration"]
    assert plugin["name"] == "PodSecurity"
    assert standard["defaults"]["enforce"] == "baseline"
    assert standard["exemptions"]["namespaces"] == ["kube-system"]


def test_services_are_made_by_nftables(rendering) -> None:
    proxy = yaml.safe_load(rendering.text("daemons", "kube-proxy.yaml"))
    assert (proxy["mode"], proxy["clusterCIDR"]) == ("nftables", "10.244.0.0/16")


def test_what_writes_are_done_is_recorded(rendering) -> None:
    policy = yaml.safe_load(rendering.text("daemons", "audit.yaml"))
    assert policy["rules"][-1] == {"level": "Metadata"}


def test_the_api_server_knows_who_asks_and_what_he_may(rendering) -> None:
    arguments = rendering.arguments("kube-apiserver")
    assert arguments["anonymous-auth"] == "false"
    assert arguments["authorization-mode"] == "Node,RBAC"
    assert "NodeRestriction" in arguments["enable-admission-plugins"]
    assert arguments["etcd-servers"].startswith("https://127.0.0.1")
    assert {"encryption-provider-config", "audit-policy-file", "kubelet-certificate-authority"} <= set(
        arguments
    )


def test_every_daemon_listens_on_the_node_only(rendering) -> None:
    own = {"198.51.100.10", "127.0.0.1"}
    for daemon in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        assert rendering.arguments(daemon)["bind-address"] in own, daemon
    etcd = rendering.arguments("etcd")
    for name in ("listen-client-urls", "listen-peer-urls"):
        assert etcd[name].startswith("https://127.0.0.1:")
    assert {etcd["client-cert-auth"], etcd["peer-client-cert-auth"]} == {"true"}
    assert rendering.arguments("kube-network-policies")["health-address"].startswith("127.0.0.1:")
    proxy = yaml.safe_load(rendering.text("daemons", "kube-proxy.yaml"))
    for name in ("healthzBindAddress", "metricsBindAddress"):
        assert proxy[name].startswith("127.0.0.1:")


def test_network_policies_are_enforced_on_all_pods_before_the_kubelet_starts_any(rendering, node) -> None:
    enforcing = rendering.arguments("kube-network-policies")
    assert (enforcing["node"], enforcing["pods"]) == (node.name, "10.244.0.0/16")
    priorities = {each["name"]: each["priority"] for each in rendering.variable("daemons")}
    assert priorities["kube-network-policies"] < priorities["kubelet"]


def test_the_node_is_not_ready_while_network_policies_are_not_enforced(rendering) -> None:
    (enforcing,) = (each for each in rendering.variable("daemons") if each["name"] == "kube-network-policies")
    address = rendering.arguments("kube-network-policies")["health-address"]
    assert enforcing["ready"] == {"url": f"http://{address}/healthz"}


def test_each_program_of_the_toolchain_runs_as_a_daemon(rendering) -> None:
    daemons = rendering.variable("daemons")
    assert {each["name"] for each in daemons} == {*PROGRAMS, "containerd"} - {"kubectl"}
    assert all(each["ready"].keys() & {"url", "socket"} for each in daemons)


def test_every_file_that_a_daemon_reads_is_written_by_a_role(rendering, node) -> None:
    """A file that nobody writes would keep the node from starting; one that changes starts its daemon anew."""
    etc = Path(node.variables()["etc"])
    made = _certificates(rendering)
    tasks = yaml.safe_load((ROLES / "daemons" / "tasks" / "main.yaml").read_text())
    for files in (tasks[0]["file_tree"]["files"], tasks[0]["file_tree"]["kept"]):
        made |= {str(etc / name) for name in files}
    read = {path for each in rendering.variable("daemons") for path in each.get("reads", [])}
    assert read <= made


def test_keys_are_read_from_where_certificates_are_made(rendering) -> None:
    made = _certificates(rendering)
    for daemon in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        files = {
            value
            for value in rendering.arguments(daemon).values()
            if Path(value).suffix in {".crt", ".key", ".pub"}
        }
        assert files
        assert files <= made, daemon


def test_the_daemons_rights_are_bound_to_the_names_in_their_certificates(rendering) -> None:
    names = {each["common_name"] for each in _asked_certificates()["certificates"]}
    subjects = {
        subject["name"]
        for binding in rendering.objects("access.yaml").values()
        for subject in binding.get("subjects", [])
    }
    assert subjects
    assert subjects <= names


def _runc(rendering: Rendering) -> dict[str, Any]:
    plugins = tomllib.loads(rendering.text("daemons", "containerd.toml"))["plugins"]
    options: dict[str, Any] = plugins["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]["runc"][
        "options"
    ]
    return options


def _asked_certificates() -> dict[str, Any]:
    (task,) = yaml.safe_load((ROLES / "certificates" / "tasks" / "main.yaml").read_text())
    asked: dict[str, Any] = task["certificates"]
    return asked


def _certificates(rendering: Rendering) -> set[str]:
    """Every file that the role `certificates` writes."""
    asked, folder = _asked_certificates(), rendering._variables["pki"]
    names = [each["name"] for each in (*asked["authorities"], *asked["certificates"])]
    files = {f"{folder}/{name}.{kind}" for name in names for kind in ("crt", "key")}
    files |= {f"{folder}/{name}.{kind}" for name in asked["signing_keys"] for kind in ("pub", "key")}
    etc = rendering._variables["etc"]
    return files | {str(path).replace("{{ etc }}", etc) for path in asked["kubeconfigs"]["paths"].values()}
