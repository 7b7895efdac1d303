"""``python -m playbooks``: what a user types and sees."""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from typer.testing import CliRunner

from playbooks import artifacts, cli
from playbooks.machine import MachineError
from playbooks.node import DEFAULT_ADDRESS, IMAGES, NodeImage
from playbooks.running import PlaybookError, PlaybookInterrupted, Run, Step
from toolchain import ToolMissingError
from toolchain.images import ImageMissingError

run = CliRunner().invoke
STEPS = [Step("packages", 1.25, False), Step("daemons", 3.5, True)]


class Playbooks:
    """Stands in for Ansible: remembers what was run, and says that it went well unless told otherwise."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, dict]] = []
        self.failure: Exception | None = None

    def run(self, name, variables, *, begun, done) -> Run:
        self.ran.append((name, dict(variables)))
        if self.failure:
            raise self.failure
        for step in STEPS:
            begun(step.name)
            done(step)
        return Run(steps=STEPS, seconds=4.8)


@pytest.fixture
def playbooks(monkeypatch, tmp_path, node):
    """A machine that is fit, programs and images that are there."""
    found = Playbooks()
    monkeypatch.setattr(cli, "run_playbook", found.run)
    monkeypatch.setattr(cli, "LOCK", tmp_path)
    for name in ("refuse_unfit", "refuse_foreign_kubelet"):
        monkeypatch.setattr(cli, name, lambda: None)
    monkeypatch.setattr(cli, "refuse_foreign_configuration", lambda *_: None)
    monkeypatch.setattr(cli, "refuse_taken_ports", lambda _: None)
    monkeypatch.setattr(cli, "refuse_all_but_root", lambda _: None)
    monkeypatch.setattr(cli, "end_leftovers", lambda *_: None)
    monkeypatch.setattr(cli, "this_machine", lambda: node.machine)
    monkeypatch.setattr(cli, "node_programs", lambda: node.programs)
    monkeypatch.setattr(cli, "node_images", lambda: node.images)
    return found


def refuse(monkeypatch, name: str, words: str) -> None:
    def refusal(*_: object) -> None:
        raise MachineError(words)

    monkeypatch.setattr(cli, name, refusal)


def test_up_tells_each_step_and_how_to_use_the_cluster(playbooks) -> None:
    done = run(cli.app, ["up"])
    assert done.exit_code == 0
    assert [line.split(":")[1].split()[0] for line in done.stderr.splitlines()] == ["packages", "daemons"]
    assert "✓ as it should be: packages 1.2 s" in done.stderr
    assert "✓ changed: daemons 3.5 s" in done.stderr
    assert done.stdout.splitlines() == [
        "ok=2 changed=1 in 4.8 s",
        f"kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes   # https://{DEFAULT_ADDRESS}:6443",
    ]
    ((name, variables),) = playbooks.ran
    assert (name, variables["address"]) == ("cluster", DEFAULT_ADDRESS)


def test_up_tells_programs_the_same_as_json(playbooks) -> None:
    told = json.loads(run(cli.app, ["up", "--address", "192.0.2.7", "--json"]).stdout)
    assert told == {
        "kubeconfig": "/etc/kubernetes/admin.conf",
        "server": "https://192.0.2.7:6443",
        "node": "quiet",
        "seconds": 4.8,
        "changed": 1,
        "steps": [
            {"name": "packages", "seconds": 1.25, "changed": False},
            {"name": "daemons", "seconds": 3.5, "changed": True},
        ],
    }


def test_down_needs_to_know_places_only(playbooks) -> None:
    done = run(cli.app, ["down"])
    assert (done.exit_code, done.stdout) == (0, "ok=2 changed=1 in 4.8 s\n")
    ((name, variables),) = playbooks.ran
    assert name == "cluster-down"
    assert "/var/lib/kubelet" in variables["folders"]


def test_check_changes_nothing(playbooks) -> None:
    assert run(cli.app, ["check"]).exit_code == 0
    assert playbooks.ran == []


@pytest.mark.parametrize("command", ["check", "up"])
@pytest.mark.parametrize(
    "refusal",
    ["refuse_unfit", "refuse_foreign_kubelet", "refuse_foreign_configuration", "refuse_taken_ports"],
)
def test_an_unfit_machine_is_refused_politely(playbooks, monkeypatch, command, refusal) -> None:
    refuse(monkeypatch, refusal, "a kubelet runs on this machine already [4711]")
    done = run(cli.app, [command])
    assert (done.exit_code, done.stderr) == (2, "a kubelet runs on this machine already [4711]\n")
    assert playbooks.ran == []


def test_a_bad_address_is_refused_before_anything_is_done(playbooks) -> None:
    done = run(cli.app, ["up", "--address", "10.244.0.1"])
    assert done.exit_code == 2
    assert "lies in 10.244.0.0/16, which is for pods" in done.stderr
    assert playbooks.ran == []


def test_down_is_for_root(playbooks, monkeypatch) -> None:
    refuse(monkeypatch, "refuse_all_but_root", "make cluster-down must run as root")
    done = run(cli.app, ["down"])
    assert (done.exit_code, done.stderr) == (2, "make cluster-down must run as root\n")
    assert playbooks.ran == []


def test_a_failed_step_is_told_without_a_stack_trace(playbooks) -> None:
    playbooks.failure = PlaybookError("daemons: etcd is not ready")
    done = run(cli.app, ["up"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.endswith("daemons: etcd is not ready\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("interruption", [PlaybookInterrupted(), KeyboardInterrupt()])
def test_ctrl_c_says_how_to_go_on(playbooks, interruption) -> None:
    playbooks.failure = interruption
    done = run(cli.app, ["down"])
    assert done.exit_code == 130
    assert "interrupted: run it again to complete it" in done.stderr


def test_a_missing_tool_is_told(playbooks, monkeypatch) -> None:
    def missing():
        raise ToolMissingError("kubernetes is not installed")

    monkeypatch.setattr(cli, "node_programs", missing)
    done = run(cli.app, ["up"])
    assert (done.exit_code, done.stderr) == (1, "kubernetes is not installed\n")


def test_every_daemon_that_listens_is_asked_for_its_port(playbooks, monkeypatch) -> None:
    asked: list[dict[str, tuple[str, int]]] = []
    monkeypatch.setattr(cli, "refuse_taken_ports", asked.append)
    run(cli.app, ["check", "--address", "192.0.2.7"])
    (ports,) = asked
    assert ports["kube-apiserver"] == ("192.0.2.7", 6443)
    assert {address for address, _ in ports.values()} == {"192.0.2.7", "127.0.0.1"}
    assert len(set(ports.values())) == len(ports)


def test_a_second_run_waits_for_the_first(playbooks, tmp_path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)

    def later() -> None:
        time.sleep(0.3)
        assert playbooks.ran == []
        os.close(held)

    waiting = threading.Thread(target=later)
    waiting.start()
    done = run(cli.app, ["down"])
    waiting.join()
    assert done.exit_code == 0
    assert "waiting for another `make cluster` or `make cluster-down` to end" in done.stderr
    assert len(playbooks.ran) == 1


def test_programs_and_images_are_those_of_the_toolchain(monkeypatch) -> None:
    class Tool:
        def __init__(self, name: str) -> None:
            self.executables = {f"{name}-program": f"/cache/{name}"}

    class Image:
        def __init__(self, name: str) -> None:
            self.reference = f"registry.test/{name}"
            self.executables = {} if name == "pause" else {name: f"/opt/{name}"}

    monkeypatch.setattr(artifacts, "locate_tool", Tool)
    monkeypatch.setattr(artifacts, "locate_image", Image)
    assert artifacts.node_programs()["kube-network-policies-program"] == "/cache/kube-network-policies"
    images = artifacts.node_images()
    assert set(images) == set(IMAGES)
    assert images["coredns"] == NodeImage("registry.test/coredns", "/opt/coredns")


def test_an_image_that_is_not_built_is_told(playbooks, monkeypatch) -> None:
    def missing(_: str) -> None:
        raise ImageMissingError("coredns is not built; run `make images`")

    monkeypatch.setattr(artifacts, "locate_image", missing)
    monkeypatch.setattr(cli, "node_images", artifacts.node_images)
    done = run(cli.app, ["up"])
    assert (done.exit_code, done.stderr) == (1, "coredns is not built; run `make images`\n")


def test_the_module_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "playbooks", "--help"], capture_output=True, text=True, check=True
    )
    assert all(command in done.stdout for command in ("check", "up", "down"))
