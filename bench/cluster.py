"""How long the platform takes in a cluster: beside the goals, and beside this machine's own processes.

The stack of the host target runs first and is gone when the cluster's turn comes: two platforms on one machine would
measure each other.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.platform import IDLE_S, line
from tests.conformance.platform import FIRST_COLLECTION, FIRST_UP, PROJECT, Platform
from tests.kubernetes.live import LiveCluster
from tests.stack.live import LiveStack

CLUSTER_S, UP_S, NO_CHANGE_S, TIMES_OF_HOST = 60, 240, 25, 1.5


def run() -> None:
    """Measure a stack on the host, then one in this machine's cluster, which is made if it is not there."""
    if sys.platform != "linux" or os.geteuid():
        print("a cluster was not measured: this machine becomes one only with Linux, and for root")
        return
    with _brought(LiveStack.somewhere()) as host:
        pass
    with _cluster(), _brought(LiveCluster.somewhere()) as cluster:
        line("pulumi up of the whole platform, from nothing", cluster.timings[FIRST_UP], "s", UP_S)
        cluster.pulumi("up", "--yes", "--skip-preview")
        line("second pulumi up, no change", cluster.timings["pulumi up"], "s", NO_CHANGE_S)
        own, peer = cluster.timings[FIRST_COLLECTION], host.timings[FIRST_COLLECTION]
        line(f"first collection of the sample files (host: {peer:.1f} s)", own, "s", peer * TIMES_OF_HOST)
        print(f"{'ratio to the host target':<70} {own / peer:>8.2f}")
        time.sleep(IDLE_S)
        used = sum(state["memory_bytes"] for state in cluster.status_with_memory()) / 2**20
        print(f"{'idle: what the cluster measures of all pods':<70} {used:>8.1f} MiB")
        cluster.make("down")
        print(f"{'make down':<70} {cluster.timings['down']:>8.1f} s")


@contextmanager
def _brought(platform: Platform) -> Iterator[Platform]:
    try:
        yield platform.bring()
    finally:
        platform.discard()


@contextmanager
def _cluster() -> Iterator[None]:
    """A cluster whose node this machine is; what was there before stays, and was not measured."""
    if LiveCluster.kubeconfig.exists():
        line("make cluster, when it is there", _playbook("up"), "s", CLUSTER_S)
        yield
        return
    try:
        line("make cluster, from nothing, tools and images cached", _playbook("up"), "s", CLUSTER_S)
        yield
    finally:
        print(f"{'make cluster-down':<70} {_playbook('down'):>8.1f} s")


def _playbook(command: str) -> float:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "playbooks", command], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"`python -m playbooks {command}` failed:\n{done.stdout}{done.stderr}")
    return time.monotonic() - began
