"""A node's traces in a real kernel: made once, gone afterwards. In a network namespace of its own.

They lie here for the sake of nft and iptables, which go away with the node.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

NODE = """
import json, subprocess, sys
from pathlib import Path
from playbooks.library import node_network, node_removal
from playbooks.record import read_record

folder = Path(sys.argv[1])
record = folder / "data" / "before.json"
saw = {}

def command(*words, stdin=None):
    return subprocess.run(words, check=True, capture_output=True, text=True, input=stdin).stdout

def bring():
    return node_network.ensure(
        record, address="198.51.100.10", pods="10.244.0.0/16", services="10.96.0.0/16",
        settings={"net.ipv4.ip_forward": "1"}, shared=[],
    )

def state():
    return {
        "tables": command("nft", "list", "ruleset"),
        "links": [each["ifname"] for each in json.loads(command("ip", "-json", "link"))],
        "addresses": command("ip", "-brief", "-4", "address"),
        "routes": command("ip", "route"),
        "forward": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }

command("mount", "-t", "sysfs", "none", "/sys")  # it shows the links of the namespace that it was mounted in
command("ip", "link", "set", "lo", "up")
Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
command("nft", "-f", "-", stdin="add table inet mine\\nadd chain inet mine own\\n")
saw["before"] = state()
saw["first"] = bring()
saw["made"] = state()
saw["second"] = bring()

# What kube-proxy, kube-network-policies, the CNI plug-ins and their pods leave.
command("nft", "-f", "-", stdin="add table ip kube-proxy\\nadd chain ip kube-proxy services\\n")
command("ip", "link", "add", "cni0", "type", "bridge")
command("ip", "link", "add", "veth1", "type", "veth", "peer", "name", "veth2")
command("ip", "link", "set", "veth1", "master", "cni0")
for words in (
    ("-t", "mangle", "-N", "KUBE-NETWORK-POLICIES"),
    ("-t", "mangle", "-A", "KUBE-NETWORK-POLICIES", "-s", "10.244.0.0/16", "-j", "NFQUEUE", "--queue-num", "100"),
    ("-t", "mangle", "-I", "POSTROUTING", "-j", "KUBE-NETWORK-POLICIES"),
    ("-t", "nat", "-N", "CNI-HOSTPORT-DNAT"),
    ("-t", "nat", "-A", "PREROUTING", "-j", "CNI-HOSTPORT-DNAT"),
):
    command("iptables", *words)
below = folder / "kubelet" / "pods" / "1"
below.mkdir(parents=True)
command("mount", "-t", "tmpfs", "none", str(below))

def remove():
    told = read_record(record)
    steps = {
        "mounts": node_removal.unmount([str(folder / "kubelet")]),
        "links": node_removal.remove_links(),
        "rules": node_removal.remove_rules(told["tables"]),
        "settings": node_removal.restore(told),
    }
    return [name for name, done in steps.items() if done]

saw["removed"] = remove()
saw["after"] = state()
saw["again"] = remove()
saw["mounts"] = str(below) in Path("/proc/self/mountinfo").read_text()
print(json.dumps(saw))
"""


@pytest.fixture(scope="module")
def saw(tmp_path_factory):
    """What a machine of its own looked like before, during and after."""
    needed = ("unshare", "ip", "nft", "iptables")
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux and root")
    if lacking := [name for name in needed if not shutil.which(name)]:
        pytest.skip(f"{', '.join(lacking)} not installed; `make cluster` brings them")
    folder = tmp_path_factory.mktemp("node")
    (folder / "node.py").write_text(NODE)
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, str(folder / "node.py"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if "Operation not permitted" in done.stderr and "unshare" in done.stderr:
        pytest.skip(f"this machine lets nobody make a network namespace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_bare_machine_is_changed_once(saw) -> None:
    assert saw["first"] == ["net.ipv4.ip_forward", "198.51.100.10", "route", "masquerading"]
    assert saw["second"] == []


def test_the_kernel_took_it(saw) -> None:
    made = saw["made"]
    assert "198.51.100.10/32" in made["addresses"]
    assert "10.96.0.0/16 dev lo" in made["routes"]
    assert "ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade" in made["tables"]
    assert made["forward"] == "1\n"


def test_all_of_it_goes_again_and_what_was_before_stays(saw) -> None:
    assert saw["removed"] == ["mounts", "links", "rules", "settings"]
    assert saw["after"] == saw["before"]
    assert saw["mounts"] is False


def test_a_second_removal_finds_nothing(saw) -> None:
    assert saw["again"] == []
