"""One trace from the command to the Delta commit, logs with its id, metrics that count: in real stores."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from marketlake.settings import Settings

from tests import servers
from tests.deployed import Deployed, deployed
from tests.waiting import eventually

ENVIRONMENT = f"telemetry-{uuid4().hex[:8]}"
SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="module")
def platform(
    settings: Settings, postgres_server: servers.Postgres, servers_folder: Path
) -> Iterator[Deployed]:
    own = settings.model_copy(
        update={
            "environment": ENVIRONMENT,
            "database": postgres_server.create_database(f"t{uuid4().hex[:8]}"),
        }
    )
    with deployed(own, servers_folder, "telemetry") as platform:
        yield platform


@pytest.fixture(scope="module")
def summary(platform: Deployed) -> dict[str, Any]:
    platform.run("venue", "publish", str(SAMPLES))
    told: dict[str, Any] = platform.json(
        "collect", "--venue", "binance", "--market", "um", "--type", "fundingRate"
    )
    return told


def spans(platform: Deployed, trace_id: str) -> list[tuple[str, str]]:
    """(service, name) of all spans of a trace, as Jaeger has them."""
    answer = httpx.get(f"{platform.settings.telemetry.traces_url}/api/traces/{trace_id}", timeout=10)
    if answer.is_error:
        return []
    (trace,) = answer.json()["data"]
    services = {name: process["serviceName"] for name, process in trace["processes"].items()}
    return [(services[span["processID"]], span["operationName"]) for span in trace["spans"]]


def test_one_trace_runs_from_the_command_through_the_event_bus_to_the_commits(
    platform: Deployed, summary: dict[str, Any]
) -> None:
    wanted = {
        ("marketlake-cli", "marketlake collect"),
        ("collect-flow", "collect"),
        ("collect-flow", "discover"),
        ("collect-flow", "catalogue commit"),
        ("collect-flow", "plan and dispatch"),
        ("collection-worker", "collect group"),
        ("collection-worker", "copy"),
        ("collection-worker", "bronze commit"),
        ("collection-worker", "stage"),
        ("collect-flow", "silver commit"),
    }
    missing = set(wanted)

    def found() -> bool:
        missing.difference_update(spans(platform, summary["trace_id"]))
        return not missing

    try:
        eventually(found, within_s=60)
    except AssertionError:
        raise AssertionError(f"the trace lacks {sorted(missing)}") from None


def test_logs_carry_the_trace_id(platform: Deployed, summary: dict[str, Any]) -> None:
    telemetry = platform.settings.telemetry
    assert telemetry.password is not None

    def found() -> bool:
        answer = httpx.post(
            f"{telemetry.logs_url}/select/logsql/query",
            data={"query": f'trace_id:"{summary["trace_id"]}" AND "files from"', "limit": "10"},
            auth=(
                telemetry.username or "",
                telemetry.password.get_secret_value() if telemetry.password else "",
            ),
            timeout=10,
        )
        return "BTCUSDT-fundingRate-2026-04.zip on: 1 copied, 0 verified, 0 failed; 90 rows" in answer.text

    eventually(found, within_s=30)


def test_metrics_count_files_bytes_and_rows(platform: Deployed, summary: dict[str, Any]) -> None:
    telemetry = platform.settings.telemetry

    def value(query: str) -> float:
        answer = httpx.get(
            f"{telemetry.metrics_url}/api/v1/query",
            params={"query": query, "latency_offset": "1ms"},
            auth=(
                telemetry.username or "",
                telemetry.password.get_secret_value() if telemetry.password else "",
            ),
            timeout=10,
        )
        results = answer.json()["data"]["result"]
        return float(results[0]["value"][1]) if results else 0.0

    labels = f'deployment_environment_name="{ENVIRONMENT}",service_name="collection-worker"'
    eventually(lambda: value(f'sum(marketlake_files_total{{{labels},outcome="copied"}})') == 1, within_s=60)
    assert value(f'sum(marketlake_rows_total{{{labels},layer="bronze"}})') == 90
    assert value(f"sum(marketlake_read_bytes_total{{{labels}}})") == 960


def test_no_secret_is_in_any_log(platform: Deployed, summary: dict[str, Any]) -> None:
    from marketlake.infrastructure.telemetry.redaction import secrets_of

    time.sleep(1)
    logs = [path.read_text(errors="replace") for path in platform.worker.log.parent.glob("*.log")]
    assert logs
    for secret in secrets_of(platform.settings):
        assert all(secret not in log for log in logs)
