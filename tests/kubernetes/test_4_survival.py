"""Whatever breaks, the platform comes back by itself or by the next `up`, and nothing that was committed is lost."""

from uuid import uuid4

import pytest
import yaml

from tests.conformance.crashes import Committed, CrashPromises
from tests.conformance.holdings import SERVICES
from tests.kubernetes.live import NAMESPACE, LiveCluster
from tests.kubernetes.node import restart_daemons
from tests.waiting import eventually
from toolchain.images import locate

_UNREACHABLE = 3


class TestCrashes(CrashPromises):
    """In a cluster: containers end by SIGKILL."""


def test_every_pod_at_once_is_deleted_and_replaced(platform: LiveCluster) -> None:
    before = Committed.of(platform)
    former = {name: _uids(platform, name) for name in SERVICES}
    platform.kubectl("delete", "pods", "--all", f"--namespace={NAMESPACE}", "--wait=true", "--timeout=110s")
    platform.wait_for_pods()
    platform.wait_until_healthy()
    for name, uids in former.items():
        now = _uids(platform, name)
        assert now, name
        assert not uids & now, name
    assert before.missing_in(Committed.of(platform)) == {}


def _uids(platform: LiveCluster, service: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in platform.pods(service)}


@pytest.mark.parametrize(
    "daemons", [("kubelet",), ("containerd",), ()], ids=["the kubelet", "containerd", "all of them"]
)
def test_daemons_of_the_node_are_restarted(platform: LiveCluster, daemons: tuple[str, ...]) -> None:
    """No name means all of them, the control plane and the network with them."""
    before = Committed.of(platform)
    running = {uid for name in SERVICES for uid in _uids(platform, name)}
    restart_daemons(daemons)
    eventually(lambda: platform.kubectl("get", "--raw=/readyz", check=False).strip() == "ok", within_s=120)
    eventually(lambda: "True" in _node_ready(platform), within_s=120)
    _wait_for_controllers(platform)
    platform.wait_for_pods()
    platform.wait_until_healthy()
    assert {pod["metadata"]["uid"] for pod in platform.pods()} >= running, "pods were replaced for no reason"
    assert before.missing_in(Committed.of(platform)) == {}


def _wait_for_controllers(platform: LiveCluster) -> None:
    """Wait until what is asked for is acted upon: before that a workload looks as ready as it was, whatever changes."""
    probe = f"probe-{uuid4().hex[:8]}"
    platform.kubectl("create", "namespace", probe)
    try:
        account = ("get", "serviceaccount", "default", f"--namespace={probe}", "--output=name")
        eventually(lambda: platform.kubectl(*account, check=False).strip(), within_s=120)
    finally:
        platform.kubectl("delete", "namespace", probe, "--timeout=60s")


def _node_ready(platform: LiveCluster) -> str:
    path = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    return platform.kubectl("get", "nodes", f"--output={path}", check=False)


def test_a_bad_image_stops_the_rollout_and_is_mended_by_the_next_up(platform: LiveCluster) -> None:
    """Two images lack a program: the collection workers', whose pods overlap with the next ones, and a store's, whose
    one pod has to go before the next comes. `up` says what the pods say, and who works goes on working. No image has to
    be fetched: it need not be waited for.
    """
    before = Committed.of(platform)
    serving = _serving(platform)
    assert serving
    platform.configure(
        images={
            "vendor": {image: _without_program(image, image) for image in ("marketlake", "victoria-logs")}
        },
        kubernetes={**platform.own_settings["kubernetes"], "rolloutAllowanceSeconds": 15},
    )
    failed = platform.make("up", "--no-collect", check=False)
    output = failed.stdout + failed.stderr
    assert failed.returncode == 1, output
    assert "/opt/absent" in output, "the pod's own error is not reported"
    assert "no such file" in output, output
    assert _serving(platform) >= serving, "the old pods do not serve on"

    platform.configure()
    platform.make("up", "--no-collect")
    platform.wait_for_pods()
    platform.wait_until_healthy()
    assert before.missing_in(Committed.of(platform)) == {}


def _without_program(image: str, program: str) -> dict[str, object]:
    """Settings of the image in which one program is said to lie where nothing is."""
    built = locate(image)
    return {"reference": built.reference, "executables": {**built.executables, program: "/opt/absent"}}


def _serving(platform: LiveCluster) -> set[str]:
    """The collection workers' pods that are ready."""
    return {pod["metadata"]["uid"] for pod in platform.pods("collection-worker") if _is_ready(pod)}


def _is_ready(pod: dict) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ())
    )


def test_an_unreachable_cluster_is_told_within_seconds(platform: LiveCluster, tmp_path) -> None:
    config = yaml.safe_load(platform.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text(yaml.safe_dump(config))
    elsewhere.chmod(0o600)
    platform.configure(kubernetes={"kubeconfig": str(elsewhere)})
    try:
        for command in ("preview", "up"):
            failed = platform.make(command, check=False)
            told = " ".join((failed.stdout + failed.stderr).split())
            assert failed.returncode == _UNREACHABLE, told
            assert "The cluster at https://127.0.0.1:9" in told
            assert "does not answer" in told
            assert "kubectl cluster-info" in told
            assert "Traceback" not in told
            assert platform.timings[command] < 30
    finally:
        platform.configure()
