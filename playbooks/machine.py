"""Facts of this machine, and checks that it can be made a node."""

import gzip
import os
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

SUPPORTED = ("debian", "ubuntu")
_OURS = "MARKETLAKE_CLUSTER"
_CAP_SYS_RESOURCE = 24
_POLICY_OPTIONS = ("CONFIG_NETFILTER_NETLINK_QUEUE", "CONFIG_NETFILTER_XT_TARGET_NFQUEUE")
"""What kube-network-policies needs of the kernel; Debian's and Ubuntu's have it."""


class MachineError(Exception):
    """This machine cannot be made a node; the message says why and what can be done instead."""


@dataclass(frozen=True)
class Machine:
    """Facts that the playbooks need."""

    name: str
    """Of the host, as it calls itself."""
    systemd: bool
    """Whether systemd is PID 1, and so the owner of the control groups."""
    oom_restricted: bool
    """Whether root may not lower a process's OOM score."""
    name_servers: tuple[str, ...]
    """That pods can reach, so none on loopback."""


def this_machine(root: Path = Path("/")) -> Machine:
    """Facts of the running machine; `root` is another place to read them from."""
    capabilities = 0
    for line in (root / "proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            capabilities = int(line.split()[1], 16)
    return Machine(
        name=socket.gethostname(),
        systemd=(root / "run/systemd/system").is_dir(),
        oom_restricted=not capabilities >> _CAP_SYS_RESOURCE & 1,
        name_servers=name_servers(root),
    )


def name_servers(root: Path) -> tuple[str, ...]:
    """Servers of the resolver's file; systemd's own list where it hides them behind one on loopback."""
    for file in (root / "etc/resolv.conf", root / "run/systemd/resolve/resolv.conf"):
        try:
            words = [line.split() for line in file.read_text().splitlines()]
        except OSError:
            continue
        servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
        if reachable := tuple(each for each in servers if not each.startswith("127.") and each != "::1"):
            return reachable
    return ()


def refuse_unfit(root: Path = Path("/"), *, user: int | None = None) -> None:
    """Raise unless this machine can be made a node.

    Raises:
        MachineError: not root, not Debian or Ubuntu, a kernel that cannot enforce NetworkPolicies.
    """
    refuse_all_but_root("make cluster", user=user)
    release = os_release(root)
    kinds = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if not kinds & set(SUPPORTED):
        raise MachineError(
            f"this machine runs {release.get('PRETTY_NAME', 'an unknown system')}; the playbooks know Debian and "
            "Ubuntu, whose packages they install. Any conforming cluster does as well: make one with what your "
            "system offers (kind, k3s, kubeadm) and name its kubeconfig in the environment's settings."
        )
    refuse_kernel_without_policies(root)


def refuse_kernel_without_policies(root: Path) -> None:
    """Raise if the kernel is known to miss an option that enforcing NetworkPolicies needs.

    A kernel whose configuration is nowhere to be read passes: the daemon that enforces them says it later.

    Raises:
        MachineError: an option is missing.
    """
    options = kernel_options(root, os.uname().release)
    lacking = [name for name in _POLICY_OPTIONS if options and options.get(name) not in {"y", "m"}]
    if lacking:
        raise MachineError(
            f"the kernel {os.uname().release} is built without {', '.join(lacking)}, so NetworkPolicies would not be "
            "enforced and every pod would be open to every other. Boot a kernel that has it, as those of Debian and "
            "Ubuntu do, or name the kubeconfig of another cluster in the environment's settings."
        )


def kernel_options(root: Path, release: str) -> dict[str, str]:
    """What a kernel was configured with, e.g. ``y`` or ``m`` by the option's name; nothing if it cannot be read."""
    for file in (root / "proc/config.gz", root / f"boot/config-{release}"):
        try:
            content = file.read_bytes()
        except OSError:
            continue
        text = gzip.decompress(content).decode() if file.suffix == ".gz" else content.decode()
        rows = (line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_"))
        return dict(rows)
    return {}


def refuse_all_but_root(command: str, *, user: int | None = None) -> None:
    """Raise unless this process is root's.

    Raises:
        MachineError: it is not.
    """
    if (os.geteuid() if user is None else user) != 0:
        raise MachineError(
            f"{command} must run as root: it installs packages, mounts and sets up networks. "
            f"Run `sudo {command}`, or use a cluster that is there already by naming its kubeconfig in the "
            "environment's settings."
        )


def refuse_foreign_kubelet() -> None:
    """Raise if a kubelet runs here that is not ours.

    Raises:
        MachineError: one does.
    """
    for process in psutil.process_iter(["name"]):
        if process.info["name"] != "kubelet" or is_ours(process):
            continue
        raise MachineError(
            f"a kubelet runs on this machine already (process {process.pid}), so it is a node of another cluster. "
            "Use that cluster by naming its kubeconfig in the environment's settings, or take the node down first."
        )


def refuse_foreign_configuration(kubeconfig: Path, record: Path) -> None:
    """Raise if another cluster's files lie where ours will.

    Raises:
        MachineError: they do.
    """
    if kubeconfig.exists() and not record.exists():
        raise MachineError(
            f"{kubeconfig} belongs to a cluster that `make cluster` did not make. Use that cluster by naming the "
            f"file in the environment's settings, or remove it and {kubeconfig.parent} if the cluster is gone."
        )


def refuse_taken_ports(ports: Mapping[str, tuple[str, int]]) -> None:
    """Raise if another process listens where one of our daemons will.

    Args:
        ports: daemon → address and port.

    Raises:
        MachineError: with who holds it.
    """
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or not connection.pid or not connection.laddr:
            continue
        for daemon, (address, port) in ports.items():
            if connection.laddr.port != port or connection.laddr.ip not in {address, "0.0.0.0", "::"}:  # noqa: S104
                continue
            holder = psutil.Process(connection.pid)
            if not is_ours(holder):
                raise MachineError(
                    f"{daemon} needs {address}:{port}, which {shlex.join(holder.cmdline()[:2])} (process "
                    f"{holder.pid}) holds. End it, and run `make cluster` again."
                )


def is_ours(process: psutil.Process) -> bool:
    """Whether the process is a daemon of our node, or a child of one."""
    try:
        return _OURS in process.environ()
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return False


def os_release(root: Path) -> dict[str, str]:
    """The operating system's description of itself."""
    try:
        text = (root / "etc/os-release").read_text()
    except OSError:
        return {}
    rows = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: "".join(shlex.split(value)) for key, value in rows}
