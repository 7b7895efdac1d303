"""What the playbooks put into the node's files."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from playbooks.machine import Machine
from playbooks.node import DEFAULT_ADDRESS, IMAGES, Node, NodeImage
from playbooks.running import FOLDER

ROLES = FOLDER / "roles"
MACHINE = Machine(name="NODE_1", systemd=False, oom_restricted=True, name_servers=("192.0.2.53",))
PINNED = f"sha256:{'0' * 64}"


def rendered(template: str, **others: Any) -> str:
    images = {name: NodeImage(f"marketlake.local/{name}@{PINNED}", f"/opt/{name}") for name in IMAGES}
    programs = {"kubelet": Path("/cache/kubelet"), "kubectl": Path("/cache/kubectl")}
    node = Node(MACHINE, ipaddress.IPv4Address(DEFAULT_ADDRESS), programs, images)
    templar = Templar(loader=DataLoader(), variables={**node.variables(), **others})
    return str(templar.template(trust_as_template((ROLES / template).read_text())))


def documents(template: str, **others: Any) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(rendered(template, **others)) if document]


def test_kubelet_lets_nobody_in_and_throws_no_image_away() -> None:
    (kubelet,) = documents("daemons/templates/kubelet.yaml.j2")
    assert kubelet["address"] == DEFAULT_ADDRESS
    assert kubelet["authentication"]["anonymous"] == {"enabled": False}
    assert kubelet["authorization"] == {"mode": "Webhook"}
    assert kubelet["readOnlyPort"] == 0
    assert kubelet["imageGCHighThresholdPercent"] == 100
    assert kubelet["cgroupDriver"] == "cgroupfs"
    (other,) = documents("daemons/templates/kubelet.yaml.j2", systemd=True)
    assert other["cgroupDriver"] == "systemd"


def test_containerd_lies_apart_from_any_other_and_follows_the_machine() -> None:
    text = rendered("daemons/templates/containerd.toml.j2")
    assert 'address = "/run/marketlake-cluster/containerd/containerd.sock"' in text
    assert 'root = "/var/lib/marketlake-cluster/containerd"' in text
    assert f'sandbox_image = "marketlake.local/pause@{PINNED}"' in text
    assert "restrict_oom_score_adj = true" in text
    assert "SystemdCgroup = false" in text
    other = rendered("daemons/templates/containerd.toml.j2", systemd=True, oom_restricted=False)
    assert "SystemdCgroup = true" in other
    assert "restrict_oom_score_adj = false" in other


def test_without_a_name_server_coredns_forwards_nothing() -> None:
    def corefile(**others: Any) -> str:
        found = documents("workloads/templates/coredns.yaml.j2", **others)
        return str(next(each for each in found if each["kind"] == "ConfigMap")["data"]["Corefile"])

    assert "forward . /etc/resolv.conf" in corefile()
    assert "forward" not in corefile(name_servers=[])
    assert rendered("daemons/templates/resolv.conf.j2").strip() == "nameserver 192.0.2.53"


@pytest.mark.parametrize("name", ["coredns", "storage"])
def test_the_clusters_own_pods_are_held_to_the_restricted_standard(name: str) -> None:
    found = documents(f"workloads/templates/{name}.yaml.j2")
    (pod,) = (each["spec"]["template"]["spec"] for each in found if each["kind"] == "Deployment")
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["image"].endswith(f"@{PINNED}")
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["resources"]["limits"]["memory"]


def test_the_storage_class_is_the_default_one_and_waits_for_a_pod() -> None:
    found = documents("workloads/templates/storage.yaml.j2")
    (kind,) = (each for each in found if each["kind"] == "StorageClass")
    assert kind["metadata"]["name"] == "local"
    assert kind["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    assert (kind["volumeBindingMode"], kind["reclaimPolicy"]) == ("WaitForFirstConsumer", "Delete")


def test_every_daemon_listens_on_the_nodes_own_addresses_only() -> None:
    daemons = yaml.safe_load((ROLES / "daemons" / "vars" / "main.yaml").read_text())["daemons"]
    commands = {daemon["name"]: " ".join(daemon["command"]) for daemon in daemons}
    assert "--bind-address={{ address }}" in commands["kube-apiserver"]
    assert "--anonymous-auth=false" in commands["kube-apiserver"]
    assert "--authorization-mode=Node,RBAC" in commands["kube-apiserver"]
    for name in ("kube-controller-manager", "kube-scheduler"):
        assert "--bind-address=127.0.0.1" in commands[name]
    for flag in ("--listen-client-urls=https://127.0.0.1", "--listen-peer-urls=https://127.0.0.1"):
        assert flag in commands["etcd"]
    assert "--client-cert-auth" in commands["etcd"]
    assert "--health-addr=127.0.0.1" in commands["kube-router"]
    assert "0.0.0.0" not in " ".join(commands.values())  # noqa: S104 - nobody does
