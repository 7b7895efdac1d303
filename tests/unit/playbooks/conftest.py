import json
import os
import sys
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils import basic

from playbooks.machine import Machine
from playbooks.node import IMAGES, Node, NodeImage

Ask = Callable[..., dict[str, Any]]

PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kube-network-policies",
    "kubectl",
)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs a module as Ansible does, by arguments on one side and JSON on the other."""

    def asked(module: ModuleType, **arguments: Any) -> dict[str, Any]:
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        capsys.readouterr()
        with pytest.raises(SystemExit):
            module.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return asked


class Commands:
    """Stand-ins for programs of the system: each answers by a few lines of Python and writes down its calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._calls = folder / "calls"

    def add(self, name: str, body: str = "") -> None:
        """A program called `name`; `body` sees `arguments`, and may print or `sys.exit`."""
        program = self.folder / name
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, sys\n"
            "from pathlib import Path\n"
            "arguments = sys.argv[1:]\n"
            f"with open({str(self._calls)!r}, 'a') as calls:\n"
            f"    calls.write(json.dumps([{name!r}, *arguments]) + '\\n')\n"
            f"{body}\n"
        )
        program.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        """Program and arguments of every call so far."""
        if not self._calls.exists():
            return []
        return [json.loads(line) for line in self._calls.read_text().splitlines()]

    def forget(self) -> None:
        """Begin a new list of calls."""
        self._calls.unlink(missing_ok=True)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Programs found before the machine's own."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return Commands(folder)


@pytest.fixture
def node() -> Node:
    """A node without systemd, whose root may not lower OOM scores."""
    machine = Machine(
        name="quiet", systemd=False, oom_restricted=True, name_servers=("192.0.2.53", "192.0.2.54")
    )
    images = {
        name: NodeImage(f"registry.test/{name}@sha256:{index:064x}", f"/opt/{name}/bin/{name}")
        for index, name in enumerate(IMAGES)
    }
    programs = {name: Path("/cache") / name / "1.2.3" / "bin" / name for name in PROGRAMS}
    return Node(machine, IPv4Address("198.51.100.10"), programs, images)
