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
def platform(cluster: Path) -> Iterator[LiveCluster]:
    """The stack, up and with the samples collected; destroyed at the end, whatever happened."""
    stack = LiveCluster.somewhere()
    try:
        yield stack.bring()
    finally:
        stack.discard()
