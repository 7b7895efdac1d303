import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.live import LiveCluster
from toolchain import ToolMissingError, locate

# The files of this folder run in the order of their names, on one platform: cluster, up, policies, survival,
# upgrade, down.


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/kubernetes" in str(item.path):
            item.add_marker(pytest.mark.kubernetes)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def cluster() -> Path:
    """The kubeconfig of a cluster whose node is this machine; skips, saying why, where there can be none."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a cluster of this machine's own needs Linux and root")
    try:
        locate("kubectl")
        locate("pulumi-resource-kubernetes")
    except ToolMissingError as error:
        pytest.skip(f"{error} (`marketlake tools install --group kubernetes`)")
    kubeconfig = LiveCluster.kubeconfig
    if not kubeconfig.exists():
        pytest.skip(f"{kubeconfig} is not there: `make cluster` makes this machine a cluster")
    return kubeconfig


@pytest.fixture(scope="session")
def brought_up(cluster: Path) -> Iterator[tuple[LiveCluster, float]]:
    """The stack, up and with the samples collected, and the seconds that its first `pulumi up` took."""
    stack = LiveCluster.somewhere()
    try:
        stack.make("up", "--no-collect")
        first_up = stack.timings["up"]
        stack.make("up")
        yield stack, first_up
    finally:
        stack.discard()


@pytest.fixture(scope="session")
def platform(brought_up: tuple[LiveCluster, float]) -> LiveCluster:
    return brought_up[0]


@pytest.fixture(scope="session")
def first_up(brought_up: tuple[LiveCluster, float]) -> float:
    return brought_up[1]
