"""The variables of the playbooks: the node's paths, addresses and programs."""

import ipaddress
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playbooks.machine import Machine

ETC = Path("/etc/kubernetes")
DATA = Path("/var/lib/marketlake-cluster")
RUN = Path("/run/marketlake-cluster")
LOGS = Path("/var/log/marketlake-cluster")
PROGRAMS = Path("/opt/marketlake-cluster")
CONTAINERD_SOCKET = RUN / "containerd" / "containerd.sock"
"""Not the usual one: there another containerd, Docker's for instance, may answer."""
KUBELET_FOLDERS = (Path("/var/lib/kubelet"), Path("/var/log/pods"), Path("/var/log/containers"))
"""Nobody else's, for only one kubelet can run on a machine."""
SHARED_FOLDERS = (Path("/run/containerd"), Path("/var/lib/cni"), Path("/usr/libexec/kubernetes"))
"""Made by the node's programs, or by others before."""
KUBECONFIG = ETC / "admin.conf"
RECORD = DATA / "before.json"
API_PORT = 6443

PODS = ipaddress.IPv4Network("10.244.0.0/16")
SERVICES = ipaddress.IPv4Network("10.96.0.0/16")
DEFAULT_ADDRESS = "198.51.100.10"
"""From a block that is kept for documentation (RFC 5737), so no network has it; it exists on this machine only."""

PACKAGES = {
    "containerd": ["containerd", "ctr", "containerd-shim-runc-v2"],
    "runc": ["runc"],
    "containernetworking-plugins": [],
    "nftables": ["nft"],
    "iptables": ["iptables", "iptables-save", "iptables-restore"],
    "conntrack": ["conntrack"],
    "iproute2": ["ip"],
}
"""The distribution's packages, and the programs that they are wanted for."""
CNI_PROGRAMS = Path("/usr/lib/cni")

IMAGES = ("pause", "coredns", "metrics-server", "local-path-provisioner", "busybox")
"""What the node itself needs; by their names in toolchain.images."""


class NodeArgumentError(ValueError):
    """An argument that no node can be made with; the message says what is allowed."""


@dataclass(frozen=True)
class NodeImage:
    """An image of the cluster's own, and its program."""

    reference: str
    program: str


@dataclass(frozen=True)
class Node:
    """One node."""

    machine: Machine
    address: ipaddress.IPv4Address
    programs: dict[str, Path]
    """Name → where the toolchain installed it; the versions are part of the path."""
    images: dict[str, NodeImage]

    @property
    def name(self) -> str:
        """Of the node in the cluster."""
        return node_name(self.machine.name)

    @property
    def server(self) -> str:
        """Address of the API."""
        return f"https://{self.address}:{API_PORT}"

    def variables(self) -> dict[str, Any]:
        """Return the variables of cluster.yaml."""
        return {
            **places(),
            "name": self.name,
            "address": str(self.address),
            "server": self.server,
            "port": API_PORT,
            "pods": str(PODS),
            "node_pods": str(next(PODS.subnets(new_prefix=24))),
            "services": str(SERVICES),
            "api_service": str(SERVICES[1]),
            "dns": str(SERVICES[10]),
            "name_servers": list(self.machine.name_servers),
            "systemd": self.machine.systemd,
            "oom_restricted": self.machine.oom_restricted,
            "cni_programs": str(CNI_PROGRAMS),
            "packages": {**PACKAGES, "containernetworking-plugins": _cni_programs()},
            "private_folders": [str(DATA), str(RUN), str(LOGS), str(ETC)],
            "programs": {str(PROGRAMS / name): str(path) for name, path in self.programs.items()},
            "kubectl": [
                str(PROGRAMS / "kubectl"),
                f"--kubeconfig={KUBECONFIG}",
                f"--cache-dir={RUN / 'kubectl'}",
            ],
            "images": {
                name: {"reference": image.reference, "program": image.program}
                for name, image in self.images.items()
            },
        }


def places() -> dict[str, Any]:
    """Return the node's paths: the variables of cluster-down.yaml."""
    return {
        "python": sys.executable,
        "etc": str(ETC),
        "pki": str(ETC / "pki"),
        "data": str(DATA),
        "run": str(RUN),
        "logs": str(LOGS),
        "bin": str(PROGRAMS),
        "record": str(RECORD),
        "kubeconfig": str(KUBECONFIG),
        "containerd_socket": str(CONTAINERD_SOCKET),
        "folders": [str(path) for path in (ETC, DATA, RUN, LOGS, PROGRAMS, *KUBELET_FOLDERS)],
        "shared_folders": [str(path) for path in SHARED_FOLDERS],
    }


def node_address(text: str) -> ipaddress.IPv4Address:
    """The node's address.

    Raises:
        NodeArgumentError: it is none that a node can have.
    """
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise NodeArgumentError(f"--address {text!r} is no IPv4 address, e.g. {DEFAULT_ADDRESS}") from error
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        raise NodeArgumentError(
            f"--address {address} cannot be a node's: pods must reach it, so neither loopback, unspecified nor "
            f"multicast. Leave it out to have {DEFAULT_ADDRESS}, which exists on this machine only."
        )
    for name, block in (("pods", PODS), ("Services", SERVICES)):
        if address in block:
            raise NodeArgumentError(f"--address {address} lies in {block}, which is for {name}")
    return address


def node_name(host_name: str) -> str:
    """The host's name as Kubernetes takes it: lower case letters, digits, hyphens and dots."""
    name = re.sub(r"[^a-z0-9.-]+", "-", host_name.lower()).strip("-.")
    return name[:63].strip("-.") or "node"


def _cni_programs() -> list[str]:
    return [
        str(CNI_PROGRAMS / program) for program in ("bridge", "host-local", "tuning", "portmap", "loopback")
    ]
