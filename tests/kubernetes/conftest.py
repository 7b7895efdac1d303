import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from playbooks.machine import MachineError, refuse_foreign_configuration, refuse_foreign_kubelet, refuse_unfit
from playbooks.node import KUBECONFIG, RECORD
from tests.conformance import chaos
from tests.kubernetes.live import LiveCluster
from tests.kubernetes.traces import traces
from toolchain import ToolMissingError, locate

# The files of this folder run in the order of their names, on one cluster and one platform: cluster, up, policies,
# survival, upgrade, down.

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/kubernetes" in str(item.path):
            item.add_marker(pytest.mark.kubernetes)
            item.add_marker(pytest.mark.timeout(900))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chaos.draw(metafunc, LiveCluster.in_the_middle)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """The kubeconfig of a cluster whose node is this machine.

    One that is there is used, and left. Else one is made, and taken down at the end, when nothing may be left of
    it. Where neither can be, it says why and skips.
    """
    kubeconfig = LiveCluster.kubeconfig
    if kubeconfig.exists():
        _have_tools()
        yield kubeconfig
        return
    if kubeconfig != KUBECONFIG:
        pytest.skip(f"KUBECONFIG names {kubeconfig}, which is not there")
    if sys.platform != "linux":
        pytest.skip(f"{kubeconfig} is not there, and this machine is no Linux to make a cluster of")
    try:
        refuse_unfit()
        refuse_foreign_kubelet()
        refuse_foreign_configuration(KUBECONFIG, RECORD)
    except MachineError as error:
        pytest.skip(f"no cluster can be made here: {error}")
    before = traces()
    try:
        _make("cluster")
        yield kubeconfig
    finally:
        _make("cluster-down")
    left = traces() - before
    assert not left, f"cluster-down left {sorted(left)}"


def _have_tools() -> None:
    try:
        locate("kubectl")
        locate("pulumi-resource-kubernetes")
    except ToolMissingError as error:
        pytest.skip(f"{error} (`marketlake tools install --group kubernetes`)")


def _make(target: str) -> None:
    done = subprocess.run(
        ["make", target],
        cwd=ROOT,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"`make {target}` failed:\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def platform(cluster: Path) -> Iterator[LiveCluster]:
    """The stack, up and with the samples collected; destroyed at the end, whatever happened."""
    stack = LiveCluster.somewhere()
    try:
        yield stack.bring()
    finally:
        stack.discard()
