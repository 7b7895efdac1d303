"""Other settings: what they name changes, the rest stays, and no data is lost on the way."""

import os
import signal

from tests.conformance.crashes import AftermathPromises, Committed
from tests.conformance.holdings import counts
from tests.kubernetes.live import LiveCluster
from tests.waiting import eventually
from toolchain.images import locate

NEXT = {
    "collection": {"workers": 3, "memory": 896},
    "database": {"memory": 384},
    "eventBus": {"retentionHours": 240, "disk": 1536},
    "objectStore": {"memory": 640},
    "telemetry": {"logsRetentionDays": 20, "metricsRetentionDays": 45},
}


def test_the_next_settings_lose_no_data_even_if_up_is_killed_on_the_way(platform: LiveCluster) -> None:
    """It is killed while Pulumi waits for the next pods of a server that holds data."""
    before, rows = Committed.of(platform), counts(platform)
    untouched = {pod["metadata"]["uid"] for pod in platform.pods("trace-store")}
    platform.configure(**NEXT)
    up = platform.start("up", "--no-collect")
    eventually(lambda: _is_being_replaced(platform, "database"), within_s=120)
    assert up.poll() is None, "up ended before it could be killed"
    os.killpg(up.pid, signal.SIGKILL)
    up.wait()
    platform.make("up", "--no-collect")
    platform.wait_for_pods()
    platform.wait_until_healthy()

    assert len(platform.pods("collection-worker")) == 3
    assert _limit(platform, "collection-worker") == "896Mi"
    assert _limit(platform, "database") == "384Mi"
    assert _limit(platform, "object-store") == "640Mi"
    assert any("20d" in argument for argument in _command(platform, "log-store"))
    assert any("45d" in argument for argument in _command(platform, "metrics-store"))
    assert {pod["metadata"]["uid"] for pod in platform.pods("trace-store")} == untouched

    assert counts(platform) == rows
    assert before.missing_in(Committed.of(platform)) == {}
    platform.pulumi("preview", "--expect-no-changes")


def test_a_bad_image_stops_the_rollout_and_the_next_up_mends_it_on_the_way_back(
    platform: LiveCluster,
) -> None:
    """Two images lack a program: the collection workers', whose pods overlap with the next ones, and a store's, whose
    one pod has to go before the next comes. `up` says what the pods say, and who works goes on working.
    """
    before, rows = Committed.of(platform), counts(platform)
    serving = _serving(platform)
    assert serving
    platform.configure(
        images={
            "vendor": {image: _without_program(image, image) for image in ("marketlake", "victoria-logs")}
        }
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
    assert len(platform.pods("collection-worker")) == 2
    assert counts(platform) == rows
    assert before.missing_in(Committed.of(platform)) == {}


class TestAftermath(AftermathPromises):
    """In a cluster."""


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


def _is_being_replaced(platform: LiveCluster, service: str) -> bool:
    return any(line.startswith(f"{service}: ") for line in platform.lacking())


def _limit(platform: LiveCluster, service: str) -> str:
    return platform.pods(service)[0]["spec"]["containers"][0]["resources"]["limits"]["memory"]


def _command(platform: LiveCluster, service: str) -> list[str]:
    return platform.pods(service)[0]["spec"]["containers"][0]["command"]
