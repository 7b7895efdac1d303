"""Whether a machine can be made a node, and why not."""

import gzip
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from playbooks.machine import (
    MachineError,
    name_servers,
    os_release,
    refuse_all_but_root,
    refuse_foreign_configuration,
    refuse_foreign_kubelet,
    refuse_taken_ports,
    refuse_unfit,
    this_machine,
)

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'
UBUNTU = 'PRETTY_NAME="Ubuntu 24.04 LTS"\nID=ubuntu\nID_LIKE=debian\n'
MINT = 'PRETTY_NAME="Linux Mint 22"\nID=linuxmint\nID_LIKE="ubuntu debian"\n'
FEDORA = 'PRETTY_NAME="Fedora Linux 41"\nID=fedora\n'
LISTENING = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""
ALL_RIGHTS, NO_RESOURCE = "000001ffffffffff", "000001fffeffffff"


def machine(folder: Path, *, release: str = DEBIAN, resolv: str = "", capabilities: str = ALL_RIGHTS) -> Path:
    """A machine's root folder, with the few files that are looked at."""
    for name, text in {
        "etc/os-release": release,
        "etc/resolv.conf": resolv,
        "proc/self/status": f"Name:\tx\nCapEff:\t{capabilities}\n",
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture
def listener() -> Iterator[int]:
    """A port on which a stranger listens."""
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            LISTENING,
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as stranger:
        assert stranger.stdout is not None
        yield int(stranger.stdout.readline())
        stranger.kill()


@pytest.mark.parametrize("release", [DEBIAN, UBUNTU, MINT])
def test_debian_and_what_is_made_of_it_is_fit(tmp_path: Path, release: str) -> None:
    refuse_unfit(machine(tmp_path, release=release), user=0)


def test_another_system_is_refused_by_its_name_and_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"runs Fedora Linux 41; .* name its kubeconfig"):
        refuse_unfit(machine(tmp_path, release=FEDORA), user=0)


def test_a_system_that_does_not_describe_itself_is_refused(tmp_path: Path) -> None:
    assert os_release(tmp_path) == {}
    with pytest.raises(MachineError, match="an unknown system"):
        refuse_unfit(tmp_path, user=0)


@pytest.mark.parametrize("how", ["proc", "boot"])
def test_a_kernel_that_cannot_enforce_network_policies_is_refused(tmp_path: Path, how: str) -> None:
    root = machine(tmp_path)
    options = "# CONFIG_NETFILTER_XT_TARGET_NFQUEUE is not set\nCONFIG_NETFILTER_NETLINK_QUEUE=y\n"
    configure(root, how, options)
    with pytest.raises(
        MachineError, match=r"built without CONFIG_NETFILTER_XT_TARGET_NFQUEUE, so NetworkPolicies would not"
    ):
        refuse_unfit(root, user=0)


@pytest.mark.parametrize("value", ["y", "m"])
def test_a_kernel_that_can_or_does_not_tell_is_taken(tmp_path: Path, value: str) -> None:
    root = machine(tmp_path)
    refuse_unfit(root, user=0)
    configure(
        root, "proc", f"CONFIG_NETFILTER_XT_TARGET_NFQUEUE={value}\nCONFIG_NETFILTER_NETLINK_QUEUE={value}\n"
    )
    refuse_unfit(root, user=0)


def configure(root: Path, how: str, options: str) -> None:
    """Write a kernel's configuration where the running one or Debian has it."""
    if how == "proc":
        (root / "proc/config.gz").write_bytes(gzip.compress(options.encode()))
    else:
        (root / "boot").mkdir()
        (root / f"boot/config-{os.uname().release}").write_text(options)


def test_all_but_root_are_told_how_to_become_root(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="sudo make cluster"):
        refuse_unfit(machine(tmp_path), user=1000)
    with pytest.raises(MachineError, match="sudo make cluster-down"):
        refuse_all_but_root("make cluster-down", user=1000)


@pytest.mark.parametrize(("capabilities", "restricted"), [(ALL_RIGHTS, False), (NO_RESOURCE, True)])
def test_roots_missing_right_to_lower_oom_scores_is_seen(
    tmp_path: Path, capabilities: str, restricted: bool
) -> None:
    assert this_machine(machine(tmp_path, capabilities=capabilities)).oom_restricted is restricted


def test_systemd_is_seen_where_it_rules(tmp_path: Path) -> None:
    root = machine(tmp_path)
    assert this_machine(root).systemd is False
    (root / "run/systemd/system").mkdir(parents=True)
    assert this_machine(root).systemd is True


def test_name_servers_on_loopback_are_of_no_use_to_pods(tmp_path: Path) -> None:
    root = machine(tmp_path, resolv="search x\nnameserver 127.0.0.53\nnameserver ::1\noptions edns0\n")
    assert name_servers(root) == ()
    real = root / "run/systemd/resolve/resolv.conf"
    real.parent.mkdir(parents=True)
    real.write_text("nameserver 192.0.2.53\nnameserver 192.0.2.54\n")
    assert name_servers(root) == ("192.0.2.53", "192.0.2.54")


def test_a_file_of_another_cluster_is_not_written_over(tmp_path: Path) -> None:
    kubeconfig, memory = tmp_path / "admin.conf", tmp_path / "before.json"
    refuse_foreign_configuration(kubeconfig, memory)
    kubeconfig.write_text("")
    with pytest.raises(MachineError, match=str(kubeconfig)):
        refuse_foreign_configuration(kubeconfig, memory)
    memory.write_text("{}")
    refuse_foreign_configuration(kubeconfig, memory)


def test_a_port_that_a_stranger_holds_is_refused_with_his_name(listener: int) -> None:
    with pytest.raises(MachineError, match=rf"etcd needs 127.0.0.1:{listener}, which .*python"):
        refuse_taken_ports({"etcd": ("127.0.0.1", listener)})


def test_a_free_port_and_one_of_another_address_are_not_taken(listener: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refuse_taken_ports({"etcd": ("127.0.0.1", port), "kubelet": ("198.51.100.10", listener)})


@pytest.mark.parametrize(("environment", "ours"), [({}, False), ({"MARKETLAKE_CLUSTER": "kubelet"}, True)])
def test_a_kubelet_is_foreign_unless_it_carries_our_mark(
    tmp_path: Path, environment: dict[str, str], ours: bool
) -> None:
    program = tmp_path / "kubelet"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "30"], env=environment) as kubelet:
        try:
            if ours:
                refuse_foreign_kubelet()
            else:
                with pytest.raises(MachineError, match=rf"\(process {kubelet.pid}\)"):
                    refuse_foreign_kubelet()
        finally:
            kubelet.kill()
