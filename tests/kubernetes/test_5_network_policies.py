"""The program that enforces NetworkPolicies says when it does not; only the kernel's packet filter is a stand-in.

What it enforces on a real node is tried by test_3_policies. It lies here as its process would be taken for a trace of
the node by a cluster that is taken down meanwhile.
"""

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import eventually
from toolchain import ToolMissingError, locate

CHAIN = "KUBE-NETWORK-POLICIES"
FILTER = f"""#!{sys.executable}
# Keeps the rules of the table mangle in a file, and lists them as iptables does.
import os, sys
from pathlib import Path
kernel = Path(__file__).parent.parent / "kernel"
words = sys.argv[1:]
if (kernel.parent / "refuses").exists():
    sys.exit("iptables-restore v1.8.9: unknown option '--queue-num'")
with (kernel.parent / "asked").open("a") as file:
    print(" ".join([Path(__file__).name, *words]), file=file)
rules = kernel.read_text().splitlines() if kernel.exists() else []
if Path(__file__).name == "iptables-restore":
    rules = [rule for rule in rules if not rule.startswith("-A {CHAIN} ")]
    rules += [line for line in sys.stdin.read().splitlines() if line.startswith("-A ")]
elif "--list-rules" in words:
    print("\\n".join(rules))
else:
    rule = f"-A {{words[words.index('--jump') - 1]}} -j {{words[-1]}}"
    if "--check" in words:
        sys.exit(rule not in rules)
    rules.insert(0, rule)
kernel.write_text("\\n".join(rules))
"""
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "nobody", "user": {}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "nobody"}}],
    "current-context": "none",
}


class Agent:
    """The program, with a packet filter of its own and an API server that does not answer."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = int(free.getsockname()[1])
        (folder / "bin").mkdir()
        for name in ("iptables", "iptables-restore"):
            (folder / "bin" / name).write_text(FILTER)
            (folder / "bin" / name).chmod(0o755)
        (folder / "kubeconfig").write_text(json.dumps(KUBECONFIG))
        self.command = [
            str(program),
            f"--kubeconfig={folder / 'kubeconfig'}",
            "--node=here",
            "--pods=10.244.0.0/16",
            f"--health-address=127.0.0.1:{self._port}",
        ]
        self.environment = {"PATH": str(folder / "bin")}

    @property
    def rules(self) -> list[str]:
        kernel = self.folder / "kernel"
        return kernel.read_text().splitlines() if kernel.exists() else []

    def health(self) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def answers(self) -> bool:
        try:
            return self.health()[0] == 503
        except OSError:
            return False


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    try:
        program = locate("kube-network-policies").executables["kube-network-policies"]
    except ToolMissingError as error:
        pytest.skip(str(error))
    return Agent(tmp_path, program)


@pytest.fixture
def running(agent: Agent) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(agent.command, env=agent.environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            eventually(agent.answers)
            yield process
        finally:
            process.kill()


def test_a_kernel_that_takes_no_such_rule_ends_it_with_the_reason(agent: Agent) -> None:
    (agent.folder / "refuses").touch()
    done = subprocess.run(
        agent.command, env=agent.environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "no NetworkPolicy can be enforced on this node" in done.stderr
    assert "CONFIG_NETFILTER_XT_TARGET_NFQUEUE" in done.stderr
    assert "unknown option '--queue-num'" in done.stderr, "the packet filter's own words"


def test_pods_are_closed_before_anything_is_known_of_the_cluster(
    agent: Agent, running: subprocess.Popen[str]
) -> None:
    assert running.poll() is None
    assert [rule for rule in agent.rules if rule.endswith(f"-j {CHAIN}")] == [
        f"-A INPUT -j {CHAIN}",
        f"-A POSTROUTING -j {CHAIN}",
    ]
    judged = [rule for rule in agent.rules if "NFQUEUE" in rule]
    assert judged == [f"-A {CHAIN} -{way} 10.244.0.0/16 -j NFQUEUE --queue-num 100" for way in "sd"]
    assert not [rule for rule in judged if "bypass" in rule], "without a reader nothing may pass"


def test_it_is_not_healthy_until_the_cluster_is_known(agent: Agent, running: subprocess.Popen[str]) -> None:
    assert running.poll() is None
    status, text = agent.health()
    assert status == 503
    assert text.startswith("NetworkPolicies are not enforced on this node: ")
    for kind in ("NetworkPolicies", "namespaces", "pods"):
        assert f"the API server has not listed all {kind} yet" in text


def test_rules_that_somebody_took_away_are_missed_and_written_again(
    agent: Agent, running: subprocess.Popen[str]
) -> None:
    before = agent.rules
    (agent.folder / "kernel").write_text(before[0])
    _, text = agent.health()
    assert f"iptables lacks `{before[1]}`" in text
    assert f"4 rules of {CHAIN} as they were written" in text
    eventually(lambda: sorted(agent.rules) == sorted(before), within_s=30)
    assert running.poll() is None


def test_told_to_end_it_ends_and_pods_stay_closed(agent: Agent, running: subprocess.Popen[str]) -> None:
    before = agent.rules
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=15) == 0
    assert agent.rules == before


@pytest.mark.parametrize(
    ("argument", "message"),
    [("--node=", "--node is missing"), ("--pods=10.244.0.0", '--pods "10.244.0.0" is no IPv4 network')],
)
def test_a_wrong_argument_is_told(agent: Agent, argument: str, message: str) -> None:
    done = subprocess.run(
        [*agent.command, argument],
        env=agent.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, agent.rules) == (1, [])
    assert message in done.stderr
