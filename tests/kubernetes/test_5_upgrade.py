"""Other settings: what they name changes, the rest stays, and no data is lost on the way."""

import os
import signal

from tests.conformance.crashes import AftermathPromises, Committed
from tests.conformance.holdings import counts
from tests.kubernetes.live import LiveCluster
from tests.waiting import eventually

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
    again = platform.asked("collect", "--venue", "binance", "--all")
    assert again["failed"] == again["copied"] == 0
    platform.pulumi("preview", "--expect-no-changes")


def test_the_way_back_loses_no_data_either(platform: LiveCluster) -> None:
    before, rows = Committed.of(platform), counts(platform)
    platform.configure()
    platform.make("up", "--no-collect")
    platform.wait_for_pods()
    platform.wait_until_healthy()
    assert len(platform.pods("collection-worker")) == 2
    assert counts(platform) == rows
    assert before.missing_in(Committed.of(platform)) == {}


class TestAftermath(AftermathPromises):
    """In a cluster."""


def _is_being_replaced(platform: LiveCluster, service: str) -> bool:
    return any(line.startswith(f"{service}: ") for line in platform.lacking())


def _limit(platform: LiveCluster, service: str) -> str:
    return platform.pods(service)[0]["spec"]["containers"][0]["resources"]["limits"]["memory"]


def _command(platform: LiveCluster, service: str) -> list[str]:
    return platform.pods(service)[0]["spec"]["containers"][0]["command"]
