"""Other settings: what they name changes, the rest stays, and no data is lost on the way."""

from tests.conformance.crashes import Committed
from tests.conformance.holdings import counts
from tests.kubernetes.live import LiveCluster

NEXT = {
    "collection": {"workers": 3, "memory": 896},
    "database": {"memory": 384},
    "eventBus": {"retentionHours": 240, "disk": 1536},
    "objectStore": {"memory": 640},
    "telemetry": {"logsRetentionDays": 20, "metricsRetentionDays": 45},
}


def test_the_next_settings_lose_no_data(platform: LiveCluster) -> None:
    platform.configure()
    platform.make("up")
    before, rows = Committed.of(platform), counts(platform)
    untouched = {pod["metadata"]["uid"] for pod in platform.pods("trace-store")}
    platform.configure(**NEXT)
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


def _limit(platform: LiveCluster, service: str) -> str:
    return platform.pods(service)[0]["spec"]["containers"][0]["resources"]["limits"]["memory"]


def _command(platform: LiveCluster, service: str) -> list[str]:
    return platform.pods(service)[0]["spec"]["containers"][0]["command"]
